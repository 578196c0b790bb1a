"""What a model gives for each sequence alone, one at a time, without padding and cache; tiny models for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from cases import ENCODERS, USUAL
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.evaluate.language_model import InMemoryLM
from pipeline.model.decoder import Decoder
from pipeline.model.sources.random import RandomModel

WRITERS = [name for name in USUAL if name not in ENCODERS]
# Rotary variants whose factors depend on how long a sequence is: those that switch at SWITCH tokens, and dynamic ones.
SWITCH = 24
VARIANTS = ("phi3 longrope", "llama longrope", "gemma3_text longrope", "llama dynamic")
# Gemma 2 takes the softmax of its attention in float32 in any dtype.
ROUNDING = {"gemma2": 1e-6}
POSITIONS = 48
Pair = tuple[list[int], list[int]]


def variant(name: str) -> torch.nn.Module:
    """A tiny model with few positions, float64, seeded: of ``WRITERS`` or ``VARIANTS``."""
    architecture, _, kind = name.partition(" ")
    source = RandomModel("random", architecture=architecture, layers=2, hidden=32)
    shape = source._shape() | {"max_position_embeddings": POSITIONS, "vocab_size": 258, "pad_token_id": 257}
    shape |= {"eos_token_id": 256, "bos_token_id": None}
    if kind:
        factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [3.0, 4.0, 5.0, 6.0]}
        longrope = factors | {"rope_type": "longrope", "original_max_position_embeddings": SWITCH, "factor": 2.0}
        rope: dict[str, Any] = longrope if kind == "longrope" else {"rope_type": "dynamic", "factor": 4.0}
        rope["rope_theta"] = 10000.0
        if architecture == "gemma3_text":
            plain = {"rope_type": "default", "rope_theta": 10000.0}
            shape["rope_parameters"] = {"full_attention": rope, "sliding_attention": plain}
        else:
            shape["rope_parameters"] = rope
        if architecture == "phi3":
            shape["original_max_position_embeddings"] = SWITCH
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **shape))
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    if getattr(model.config, "_experts_implementation", None):
        # The grouped product of all experts takes no float64.
        model.config._experts_implementation = "eager"
    return model.eval()


@cache
def kept(name: str) -> torch.nn.Module:
    return variant(name)


@torch.inference_mode()
def logits_of(model: torch.nn.Module, tokens: Sequence[int]) -> torch.Tensor:
    """Of one sequence (T, V), alone. A short pass before it takes back what a dynamic variant grew to."""
    model(torch.tensor([[1]]), use_cache=False)
    return model(torch.tensor([list(tokens)]), use_cache=False).logits[0]


def reference(model: torch.nn.Module, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """What the continuation has by definition; the harness's cut of a context that is too long."""
    if not continuation:
        return 0.0, True
    fed = (context + continuation)[-(POSITIONS + 1) :][:-1]
    logits = logits_of(model, fed)[-len(continuation) :]
    target = torch.tensor(continuation)
    logp = torch.log_softmax(logits, -1).gather(1, target[:, None])
    return float(logp.sum()), bool((logits.argmax(-1) == target).all())


def pairs(seed: int) -> list[Pair]:
    """Contexts that share continuations and not, from one token to the last position, around the switch and beyond."""
    generator = torch.Generator().manual_seed(seed)

    def text(length: int) -> list[int]:
        return torch.randint(0, 250, (length,), generator=generator).tolist()

    lengths = [1, 7, SWITCH - 1, SWITCH, SWITCH + 1, POSITIONS - 2, POSITIONS, POSITIONS + 9]
    found: list[Pair] = []
    for length in lengths:
        context = text(length)
        found += [(context, text(count)) for count in (1, 1, 3, 5)]
    found += [(text(3), text(POSITIONS)), (text(2), text(POSITIONS - 5)), (text(4), []), ([], text(3)), ([], text(2))]
    return [found[place] for place in torch.randperm(len(found), generator=generator)]


def words(length: int) -> str:
    """A text of so many tokens; of equal tokens a state would be the same at any position."""
    return ("The quick brown fox jumps over the lazy dog, " * 3)[length % 7 :][:length]


def harness(model: torch.nn.Module, tokenizer: Any, batch_size: int) -> InMemoryLM:
    return InMemoryLM(model, tokenizer, batch_size)


def scored(model: torch.nn.Module, tokenizer: Any, asked: list[Pair], batch_size: int) -> list[tuple[float, bool]]:
    """Through the harness's own cut; its prefix stands for an empty context."""
    filled = [(None, context or [tokenizer.eos_token_id], rest) for context, rest in asked]
    return harness(model, tokenizer, batch_size)._loglikelihood_tokens(filled)


@contextmanager
def rows(model: torch.nn.Module) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens of every forward pass."""
    seen: list[tuple[int, int]] = []
    hook = Decoder(model).base.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple((args[0] if args else kwargs["input_ids"]).shape)),
        with_kwargs=True,
    )
    try:
        yield seen
    finally:
        hook.remove()
