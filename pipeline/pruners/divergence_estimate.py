"""The cheap form of divergence: theorem 3 on a single pass of the dense model, for every unit at once.

What a unit adds to the residual stream is taken away from the last state of the stream and read through the final norm,
as if nothing between them reacted. The variance of the change of the logits, over the likeliest tokens, then stands
for the divergence: ``KL ≈ Var_p(Δz) / 2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.capture import Forward, forwards
from pipeline.decoder import ATTENTION, BLOCK, MLP, SUBLAYERS, Decoder
from pipeline.measures.divergence import kl_estimate
from pipeline.measures.head import Head
from pipeline.pruners.base import Context, Pruner, Score
from pipeline.pruners.decision import Decision
from pipeline.pruners.divergence import Unit, head_of
from pipeline.pruners.shortgpt import blocks_to_remove
from pipeline.pruners.sublayer_drop import drop_sublayers
from pipeline.residual import layout, tap
from pipeline.sparsity import Sparsity

# Tokens of the vocabulary that the variance is taken over at each position: nearly all of the probability is theirs.
_TOKENS = 512
# Positions at a time: their rows of the projection are gathered.
_ROWS = 64


@dataclass(frozen=True)
class DivergenceEstimate(Pruner):
    """Drops the attention sublayers whose estimate is lowest. Scored once, for every sparsity."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    unit: ClassVar[str] = "attention"
    compares: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = (ATTENTION,)

    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Of all sublayers and blocks."""
        trajectory = context.trajectory
        assert trajectory is not None
        return [
            {"layer": layer, "sublayer": kind, "score": value}
            for (kind, layer), value in estimates(decoder, list(forwards(trajectory, tight=True))).items()
        ]

    def count(self, decoder: Decoder, sparsity: Sparsity) -> int:
        return sparsity.units_of(len(decoder.blocks) * len(self.kinds))

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        scores = [row for row in context.scores({}) if row["sublayer"] in self.kinds]
        chosen = sorted(scores, key=lambda row: row["score"])[: self.count(decoder, sparsity)]
        return self.decision([(row["sublayer"], row["layer"]) for row in chosen], scores)

    def decision(self, units: Sequence[Unit], scores: list[Score]) -> Decision:
        return drop_sublayers(units, scores)


@dataclass(frozen=True)
class DivergenceEstimateMLP(DivergenceEstimate):
    """The same with MLP sublayers."""

    unit: ClassVar[str] = "mlp"
    kinds: ClassVar[tuple[str, ...]] = (MLP,)


@dataclass(frozen=True)
class DivergenceEstimateJoint(DivergenceEstimate):
    """The same with attention and MLP sublayers, in one ranking."""

    unit: ClassVar[str] = "sublayer"
    kinds: ClassVar[tuple[str, ...]] = SUBLAYERS


@dataclass(frozen=True)
class DivergenceEstimateBlocks(DivergenceEstimate):
    """The same with whole blocks."""

    unit: ClassVar[str] = "block"
    kinds: ClassVar[tuple[str, ...]] = (BLOCK,)

    def count(self, decoder: Decoder, sparsity: Sparsity) -> int:
        return blocks_to_remove(decoder, sparsity)

    def decision(self, units: Sequence[Unit], scores: list[Score]) -> Decision:
        return Decision(blocks=tuple(sorted(layer for _, layer in units)), scores=scores)


@torch.inference_mode()
def estimates(decoder: Decoder, passes: Sequence[Forward]) -> dict[Unit, float]:
    """Mean of theorem 3's estimate over the predictions, in nats, for every sublayer and every block."""
    head, norm = head_of(decoder), decoder.final_norm
    assert norm is not None
    sums = dict.fromkeys(_units(len(decoder.blocks)), 0.0)
    positions = 0
    for forward in passes:
        updates, last = _updates(decoder, forward)
        for start in range(0, len(last), _ROWS):
            part = slice(start, start + _ROWS)
            read = _Reading(head, norm, last[part])
            for kind, layer in sums:
                of = SUBLAYERS if kind == BLOCK else (kind,)
                sums[kind, layer] += read.without(torch.stack([updates[other, layer][part] for other in of]).sum(0))
        positions += len(last)
    return {unit: value / positions for unit, value in sums.items()}


def _units(blocks: int) -> list[Unit]:
    return [(kind, layer) for layer in range(blocks) for kind in (*SUBLAYERS, BLOCK)]


def _updates(decoder: Decoder, forward: Forward) -> tuple[dict[Unit, torch.Tensor], torch.Tensor]:
    """What each sublayer adds to the stream at the predictions, (N, D) float32, and the last state of the stream."""
    plan, states = layout(decoder), {}

    def on_state(index: int, state: torch.Tensor) -> None:
        states[index] = forward.at_predictions(state)

    with tap(decoder, on_state):
        forward.run(decoder.model)
    updates = {
        (SUBLAYERS[index % 2], index // 2): states[after] - states[before]
        for index, (before, after) in enumerate(zip(plan.before, plan.after, strict=True))
    }
    if decoder.architecture.chained:
        return updates, states[plan.states - 1]
    # Both sublayers of a parallel block read the same state, which they are added to.
    top = len(decoder.blocks) - 1
    return updates, states[plan.before[-1]] + updates[ATTENTION, top] + updates[MLP, top]


class _Reading:
    """The last states of the stream (N, D) as probabilities of the likeliest tokens."""

    def __init__(self, head: Head, norm: torch.nn.Module, last: torch.Tensor) -> None:
        self._norm, self._last, self._device = norm, last, head.weight.device
        self._logits, tokens = head.logits(self._normalised(last)).topk(min(_TOKENS, head.vocabulary), -1)
        self._rows, self._p = head.rows(tokens), torch.softmax(self._logits, -1)

    def without(self, update: torch.Tensor) -> float:
        """Theorem 3's estimate of taking an update (N, D) away, summed over the positions."""
        delta = self._rows.logits_each(self._normalised(self._last - update)) - self._logits
        mean = (self._p * delta).sum(-1, keepdim=True)
        return float(kl_estimate((self._p * (delta - mean).square()).sum(-1), 1.0).double().sum())

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        weight = next(self._norm.parameters())
        return self._norm(x.to(weight)).float().to(self._device)
