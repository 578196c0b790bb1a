"""Trajectories and hidden states of the probe prompts. Logits are never kept: they are W h, computed when measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from pipeline.console import Progress
from pipeline.decoder import SUBLAYERS, Decoder
from pipeline.offload import resident
from pipeline.probes import Probe, encode
from pipeline.pruners.decision import Change
from pipeline.residual import first, layout, tap
from pipeline.surgery import changed_weights

_TENSORS, _FACTS = "trajectory.safetensors", "trajectory.json"
_COUNTERPARTS = "counterparts.safetensors"


@dataclass(frozen=True)
class Trajectory:
    """Greedy continuations of P prompts and the states that predict them.

    ``prompts`` are token ids; ``tokens[i]`` the generated ones, ending with end-of-text if that was reached.
    The N = sum of the continuation lengths positions are stacked prompt by prompt; position t of a prompt is the
    one that predicts its generated token t, the first being the last prompt token. ``final`` (N, D) is the state
    after the final norm; ``residual`` (states, N, D) are the distinct residual states or None, of which ``before[i]``
    and ``after[i]`` surround sublayer i (see ``pipeline.residual.Layout``).
    """

    names: list[str]
    prompts: list[list[int]]
    tokens: list[list[int]]
    texts: list[list[str]]
    final: torch.Tensor
    residual: torch.Tensor | None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def positions(self) -> list[tuple[str, int]]:
        """(prompt name, step) of each of the N positions."""
        return [(name, t) for name, tokens in zip(self.names, self.tokens, strict=True) for t in range(len(tokens))]

    def save(self, folder: Path) -> None:
        facts: dict[str, Any] = {"names": self.names, "prompts": self.prompts, "tokens": self.tokens}
        facts |= {"texts": self.texts, "before": self.before, "after": self.after}
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
    plan = layout(decoder)
    states: list[list[torch.Tensor]] = [[] for _ in range(plan.states if residual else 0)]

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
        before=plan.before,
        after=plan.after,
    )


@torch.inference_mode()
def capture_counterparts(
    model: PreTrainedModel, changes: Mapping[int, Change], dense: Trajectory, steps: int, progress: Progress
) -> torch.Tensor:
    """Layer protocol for changed weights: ``x + f'(x)`` of every sublayer, each on the dense inputs and context.

    ``model`` is dense. It runs once over its own trajectory; after each block the block runs again on the same
    arguments, once for each of its sublayers whose weights change, with these alone changed. Returns (2L, N, D), row
    ``2l`` attention, ``2l + 1`` MLP.
    """
    decoder, plan = Decoder(model), layout(Decoder(model))
    states: dict[int, torch.Tensor] = {}
    updates: dict[int, torch.Tensor] = {}
    found: dict[int, torch.Tensor] = {}
    again: list[int] = []
    ticks = iter(progress(range(len(plan.before)), "counterparts", len(plan.before)))

    def on_state(index: int, state: torch.Tensor) -> None:
        if not again:
            states[index] = state

    def on_update(index: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: object, output: Any) -> None:
            updates[index] = first(output)
            if again == [index]:
                raise _Seen

        return hook

    def rerun(layer: int) -> Callable[..., None]:
        def hook(block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            change = changes.get(layer, Change())
            for index, kind in enumerate(SUBLAYERS, start=2 * layer):
                names = [name for name in {**change.masks, **change.weights} if decoder.belongs(name, layer, kind)]
                if names:
                    again[:] = [index]
                    with resident(block), changed_weights(model, change, names), suppress(_Seen):
                        block.forward(*args, **kwargs)
                    again.clear()
                x = states[plan.before[index]]
                found[index] = _at_predictions(x + updates[index].view_as(x), dense.prompts, dense.tokens)
                next(ticks)
            states.clear()

        return hook

    with ExitStack() as stack:
        for index, sublayer in enumerate(decoder.sublayers()):
            stack.callback(sublayer.exit.register_forward_hook(on_update(index)).remove)
        for layer, block in enumerate(decoder.blocks):
            stack.callback(block.register_forward_hook(rerun(layer), with_kwargs=True).remove)
        stack.enter_context(tap(decoder, on_state))
        _forward(decoder, dense.prompts, dense.tokens, steps)
    next(ticks, None)
    return torch.stack([found[index] for index in range(len(plan.before))])


class _Seen(Exception):
    """Ends the second pass through a block where its rest is of no interest."""


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
    device = Decoder(model).device
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
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
