"""Trajectories and hidden states of the probe prompts. Logits are never stored: W h is computed when measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from pipeline.config.probes import Probe, encode
from pipeline.model.as_read import check_alone
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values
from pipeline.model.generation import Decoding, generate, pieces
from pipeline.model.positions import Positions
from pipeline.model.residual import layout, tap

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TENSORS, _FACTS = "trajectory.safetensors", "trajectory.json"
# Setting of the dtype in which states are captured.
KEY = "capture.dtype"
# Prompts per forward pass; a constant, since the shapes of a batch decide its rounding.
BATCH = 16
# A tight pass has at most this many times the tokens of its sequences, padding included.
_PADDED = 1.2


@dataclass(frozen=True)
class Trajectory:
    """Continuations of P prompts and the states that predict them.

    ``steps`` is the number of tokens allowed; ``prompts`` are token ids; ``tokens[i]`` are the generated ids, ending
    with end-of-text if that was reached; ``texts[i]`` is the text that each of them adds.
    The positions are stacked prompt by prompt; their number N is the sum of the continuation lengths. Position t of a
    prompt predicts its generated token t; the first position is the last prompt token. ``final`` (N, D) is the state
    after the final norm; ``residual`` (states, N, D) are the distinct residual states or None, of which ``before[i]``
    and ``after[i]`` surround sublayer i (see ``pipeline.model.residual.Layout``), which is the one of layer and kind
    ``places[i]``. ``ends`` are the ends of the model's ``Positions``.
    """

    names: list[str]
    steps: int
    prompts: list[list[int]]
    tokens: list[list[int]]
    texts: list[list[str]]
    final: torch.Tensor
    residual: torch.Tensor | None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    places: tuple[tuple[int, str], ...] = ()
    ends: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Width of the forward passes over this trajectory: see ``Forward``."""
        return max(map(len, self.prompts)) + self.steps

    def positions(self) -> list[tuple[str, int]]:
        """Return (prompt name, step) for each of the N positions."""
        return [(name, t) for name, tokens in zip(self.names, self.tokens, strict=True) for t in range(len(tokens))]

    def save(self, folder: Path) -> None:
        facts: dict[str, Any] = {
            "names": self.names,
            "steps": self.steps,
            "prompts": self.prompts,
            "tokens": self.tokens,
        }
        facts |= {"texts": self.texts, "before": self.before, "after": self.after}
        facts |= {"places": self.places, "ends": self.ends}
        (folder / _FACTS).write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
        tensors = {"final": self.final}
        if self.residual is not None:
            tensors["residual"] = self.residual
        save_file(tensors, folder / _TENSORS)

    @classmethod
    def load(cls, folder: Path) -> Trajectory:
        tensors = load_file(folder / _TENSORS)
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        return cls(**facts, final=tensors["final"], residual=tensors.get("residual"))


@torch.inference_mode()
def capture_trajectory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[Probe],
    steps: int,
    residual: bool,
    decoding: Decoding | None = None,
) -> Trajectory:
    """Let the model continue each probe for at most its own or ``steps`` tokens, then capture all positions at once.

    One parallel forward over prompt and continuation yields the states; the cache is used for decoding only.
    Raises ValueError if the model has too few positions, if its states are not finite, or as `check_alone`.
    """
    check_alone(model)
    prompts = [encode(probe, tokenizer) for probe in probes]
    lengths = [min(probe.steps or steps, steps) for probe in probes]
    tokens: list[list[int]] = []
    for part in _batches(len(prompts)):
        tokens += generate(model, tokenizer, prompts[part], lengths[part], decoding or Decoding(), KEY)
    plan = layout(Decoder(model))
    trajectory = Trajectory(
        names=[probe.name for probe in probes],
        steps=steps,
        prompts=prompts,
        tokens=tokens,
        texts=[pieces(row, tokenizer) for row in tokens],
        final=torch.empty(0),
        residual=None,
        before=plan.before,
        after=plan.after,
        places=tuple((sublayer.layer, sublayer.kind) for sublayer in Decoder(model).sublayers()),
        ends=Positions.of(model).ends,
    )
    states: list[list[torch.Tensor]] = [[] for _ in range(plan.states if residual else 0)]
    final: list[torch.Tensor] = []
    for forward in forwards(trajectory):

        def on_state(index: int, state: torch.Tensor, forward: Forward = forward) -> None:
            if residual:
                states[index].append(forward.at_predictions(state))
                check_values(states[index][-1], "captured states", KEY)

        with tap(Decoder(model), on_state):
            final.append(forward.at_predictions(forward.run(model)))
        check_values(final[-1], "captured states", KEY)
    # Each state's parts are released once they are joined.
    stacked = torch.stack([torch.cat(states.pop(0)) for _ in range(plan.states)]) if residual else None
    return replace(trajectory, final=torch.cat(final), residual=stacked)


@torch.inference_mode()
def capture_forced(model: PreTrainedModel, dense: Trajectory) -> torch.Tensor:
    """Return the final states (N, D) of a model that reads the dense model's trajectory (teacher-forced).

    Raises ValueError if they are not finite.
    """
    final = torch.cat([part.at_predictions(part.run(model)) for part in forwards(dense)])
    check_values(final, "captured states", KEY)
    return final


@dataclass(frozen=True)
class Forward:
    """One parallel forward pass over some prompts and their continuations, padded on the right.

    ``width`` is the length of the longest prompt with the longest continuation of the whole trajectory: two models with
    equal tokens then compute with equal shapes. It is less where that much padding would be computed in another way.
    """

    prompts: Sequence[Sequence[int]]
    tokens: Sequence[Sequence[int]]
    width: int

    def ids(self) -> torch.Tensor:
        """Return the token ids (P, T), padded; causality hides the padding."""
        rows = [[*prompt, *row] for prompt, row in zip(self.prompts, self.tokens, strict=True)]
        return torch.tensor([row + [0] * (self.width - len(row)) for row in rows])

    def run(self, model: PreTrainedModel) -> torch.Tensor:
        """Compute the final hidden states (P, T, D)."""
        decoder = Decoder(model)
        return decoder.final_states(self.ids())

    def at_predictions(self, states: torch.Tensor) -> torch.Tensor:
        """Keep the positions that predict generated tokens: (P, T, D) to (N, D), float32 at least, on the processor."""
        kept = [
            state[len(prompt) - 1 : len(prompt) - 1 + len(row)]
            for state, prompt, row in zip(states, self.prompts, self.tokens, strict=True)
        ]
        return torch.cat(kept).to(torch.promote_types(states.dtype, torch.float32)).cpu()


def forwards(trajectory: Trajectory, tight: bool = False, most: float = math.inf) -> Iterator[Forward]:
    """Yield passes that cover every position of a trajectory, in the order of its prompts.

    A ``tight`` pass is only as wide as its own longest sequence, and ends before padding exceeds a fifth of its tokens
    or before it has more than ``most`` tokens, padding included; a single longer sequence is a pass.
    """
    lengths = [len(prompt) + len(row) for prompt, row in zip(trajectory.prompts, trajectory.tokens, strict=True)]
    positions = Positions(tuple(trajectory.ends))
    for part in _alike(lengths, positions, most) if tight else positions.runs(lengths, BATCH):
        longest = max(lengths[part])
        width = longest if tight else int(min(trajectory.width, positions.reach(longest)))
        yield Forward(trajectory.prompts[part], trajectory.tokens[part], width)


def _batches(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]


def _alike(lengths: Sequence[int], positions: Positions, most: float) -> Iterator[slice]:
    """Yield runs of at most ``BATCH`` sequences of about the same length, and of at most so many tokens."""
    for run in positions.runs(lengths, len(lengths)):
        start = run.start
        for end in range(start + 1, run.stop + 1):
            longer = lengths[start : end + 1]
            tokens = max(longer) * len(longer)
            if end == run.stop or len(longer) > BATCH or tokens > min(most, _PADDED * sum(longer)):
                yield slice(start, end)
                start = end
