"""Continuations of prompts: greedy or sampled, each ended by its end-of-text token or its own length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from pipeline.decoder import Decoder

GREEDY, SAMPLE = "greedy", "sample"


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen: the likeliest, or drawn from ``softmax(z / temperature)`` with a seed."""

    kind: str = GREEDY
    temperature: float = 1.0
    seed: int = 0


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    decoding: Decoding,
) -> list[list[int]]:
    """Continuations of token ids, at most ``lengths[i]`` tokens each, cut after the end-of-text token.

    Sampling draws from the whole vocabulary and starts from the seed at every call, so that equal models sample equal
    texts. The caller's random state is left as it was.
    """
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    device = Decoder(model).device
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    ends = _end_tokens(model, tokenizer)
    sampling = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0, "top_p": 1.0}
    settings = GenerationConfig(
        max_new_tokens=max(lengths),
        repetition_penalty=1.0,
        pad_token_id=pad,
        eos_token_id=ends,
        use_cache=model.config.use_cache,
        **(sampling if decoding.kind == SAMPLE else {"do_sample": False}),
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(decoding.seed)
        rows = model.generate(ids, attention_mask=mask, generation_config=settings)[:, width:].tolist()
    return [
        row[: min(length, next((t + 1 for t, token in enumerate(row) if token in ends), len(row)))]
        for row, length in zip(rows, lengths, strict=True)
    ]


def pieces(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text that each token adds, so that joined they are the text of all of them.

    A character whose bytes are spread over several tokens comes with the last of these.
    """
    texts, done = [], ""
    for end in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:end])
        if text.endswith("\ufffd") and end < len(tokens):
            texts.append("")
            continue
        texts.append(text[len(done) :])
        done = text
    return texts


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*ends, tokenizer.eos_token_id] if token is not None})
