"""Trajectories and hidden states of the probe prompts. Logits are never kept: they are W h, computed when measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from pipeline.console import Progress
from pipeline.decoder import ATTENTION, Decoder, Sublayer
from pipeline.probes import Probe, encode
from pipeline.residual import tap
from pipeline.surgery import pruned_weights

_TENSORS, _FACTS = "trajectory.safetensors", "trajectory.json"
_COUNTERPARTS = "counterparts.safetensors"


@dataclass(frozen=True)
class Trajectory:
    """Greedy continuations of P prompts and the states that predict them.

    ``prompts`` are token ids; ``tokens[i]`` the generated ones, ending with end-of-text if that was reached.
    The N = sum of the continuation lengths positions are stacked prompt by prompt; position t of a prompt is the
    one that predicts its generated token t, the first being the last prompt token. ``final`` (N, D) is the state
    after the final norm; ``residual`` (2L + 1, N, D) are the residual states (see ``pipeline.residual``) or None.
    """

    names: list[str]
    prompts: list[list[int]]
    tokens: list[list[int]]
    texts: list[list[str]]
    final: torch.Tensor
    residual: torch.Tensor | None

    def positions(self) -> list[tuple[str, int]]:
        """(prompt name, step) of each of the N positions."""
        return [(name, t) for name, tokens in zip(self.names, self.tokens, strict=True) for t in range(len(tokens))]

    def save(self, folder: Path) -> None:
        facts = {"names": self.names, "prompts": self.prompts, "tokens": self.tokens, "texts": self.texts}
        (folder / _FACTS).write_text(json.dumps(facts, ensure_ascii=False) + "\n")
        tensors = {"final": self.final}
        if self.residual is not None:
            tensors["residual"] = self.residual
        save_file(tensors, folder / _TENSORS)

    @classmethod
    def load(cls, folder: Path) -> Trajectory:
        tensors = load_file(folder / _TENSORS)
        facts = json.loads((folder / _FACTS).read_text())
        return cls(**facts, final=tensors["final"], residual=tensors.get("residual"))


@torch.inference_mode()
def capture_trajectory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[Probe],
    steps: int,
    residual: bool,
) -> Trajectory:
    """Let the model continue each probe greedily for at most ``steps`` tokens, then capture all positions at once.

    One parallel forward over prompt and continuation yields the states; the cache is used for decoding only.
    """
    prompts = [encode(probe, tokenizer) for probe in probes]
    tokens = generate(model, tokenizer, prompts, steps)
    decoder = Decoder(model)
    slots = 2 * len(decoder.blocks) + 1 if residual else 0
    states: list[list[torch.Tensor]] = [[] for _ in range(slots)]

    def on_state(index: int, state: torch.Tensor) -> None:
        if residual:
            states[index].append(_at_predictions(state, prompts, tokens))

    with tap(decoder, on_state):
        final = _at_predictions(_forward(decoder, prompts, tokens, steps), prompts, tokens)
    return Trajectory(
        names=[probe.name for probe in probes],
        prompts=prompts,
        tokens=tokens,
        texts=[[tokenizer.decode([token]) for token in row] for row in tokens],
        final=final,
        residual=torch.stack([torch.cat(state) for state in states]) if residual else None,
    )


@torch.inference_mode()
def capture_counterparts(
    model: PreTrainedModel, masks: dict[str, torch.Tensor], dense: Trajectory, steps: int, progress: Progress
) -> torch.Tensor:
    """Layer protocol for pruned weights: ``x + f'(x)`` of every sublayer, each on the dense inputs and context.

    ``model`` is dense. It runs once over its own trajectory; after each sublayer the same module runs again on the
    same arguments with the masked weights zeroed. Returns (2L, N, D), row ``2l`` attention, ``2l + 1`` MLP.
    """
    decoder = Decoder(model)
    sublayers = decoder.sublayers()
    found: list[torch.Tensor | None] = [None] * len(sublayers)
    before: list[torch.Tensor | None] = [None]
    ticks = iter(progress(range(len(sublayers)), "counterparts", len(sublayers)))

    def on_state(index: int, state: torch.Tensor) -> None:
        before[0] = state

    def rerun(index: int, sublayer: Sublayer) -> Callable[..., None]:
        part = decoder.architecture.attention if sublayer.kind == ATTENTION else decoder.architecture.mlp
        prefix = f"{decoder.blocks_name}.{sublayer.layer}.{part}"

        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            with pruned_weights(module, prefix, masks) as changed:
                again = module.forward(*args, **kwargs) if changed else output
            update = again[0] if isinstance(again, tuple) else again
            assert before[0] is not None
            found[index] = _at_predictions(before[0] + update, dense.prompts, dense.tokens)
            next(ticks)

        return hook

    handles = [
        sublayer.module.register_forward_hook(rerun(index, sublayer), with_kwargs=True)
        for index, sublayer in enumerate(sublayers)
    ]
    try:
        with tap(decoder, on_state):
            _forward(decoder, dense.prompts, dense.tokens, steps)
    finally:
        for handle in handles:
            handle.remove()
        next(ticks, None)
    return torch.stack([state for state in found if state is not None])


def save_counterparts(states: torch.Tensor, folder: Path) -> None:
    save_file({"states": states}, folder / _COUNTERPARTS)


def load_counterparts(folder: Path) -> torch.Tensor:
    return load_file(folder / _COUNTERPARTS)["states"]


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], steps: int
) -> list[list[int]]:
    """Greedy continuations of at most ``steps`` tokens, each cut after its end-of-text token."""
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    settings = GenerationConfig(
        max_new_tokens=steps,
        do_sample=False,
        repetition_penalty=1.0,
        pad_token_id=pad,
        eos_token_id=_end_tokens(model, tokenizer),
        use_cache=model.config.use_cache,
    )
    rows = model.generate(ids, attention_mask=mask, generation_config=settings)[:, width:].tolist()
    ends = set(settings.eos_token_id)
    return [row[: next((t + 1 for t, token in enumerate(row) if token in ends), len(row))] for row in rows]


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*ends, tokenizer.eos_token_id] if token is not None})


def _forward(decoder: Decoder, prompts: list[list[int]], tokens: list[list[int]], steps: int) -> torch.Tensor:
    """Final hidden states (P, T, D) over prompt + continuation, padded on the right, where causality hides it.

    T is always that of full-length continuations, so that two models with equal tokens compute with equal shapes.
    """
    width = max(map(len, prompts)) + steps
    rows = [prompt + row for prompt, row in zip(prompts, tokens, strict=True)]
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=decoder.device)
    return decoder.base(ids, use_cache=False).last_hidden_state


def _at_predictions(
    states: torch.Tensor, prompts: Sequence[Sequence[int]], tokens: Iterable[Sequence[int]]
) -> torch.Tensor:
    """Keep the positions that predict generated tokens: (P, T, D) to (N, D) in float32 at least, on the processor."""
    kept = [
        state[len(prompt) - 1 : len(prompt) - 1 + len(row)]
        for state, prompt, row in zip(states, prompts, tokens, strict=True)
    ]
    return torch.cat(kept).to(torch.promote_types(states.dtype, torch.float32)).cpu()
