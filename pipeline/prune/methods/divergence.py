"""Divergence: remove the units whose removal changes the model's own continuations least, in probability space.

The criterion is KL(dense‖pruned) at the positions that predict the dense model's own generation (section 7 of the
paper shows that this is where generation breaks), measured teacher-forced: one parallel pass per candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.model.activations import memory_budget
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.proof import head_of
from pipeline.model.softmax import cross_entropy, normalised
from pipeline.model.structure import BLOCK, SUBLAYERS
from pipeline.model.trajectory import Trajectory
from pipeline.prune.methods.unit_search import Cost, UnitSearch

# Positions whose logits are computed at a time.
_ROWS = 256
# The power at which KL at single positions agrees best with how much of whole answers is retained.
CONFIDENCE = 4.0


@dataclass(frozen=True)
class Divergence(UnitSearch):
    """Drops units one after the other, each time the one that adds least to the divergence: see `UnitSearch`.

    Positions are weighted by the dense model's largest probability to the power of ``confidence``.
    """

    confidence: float = CONFIDENCE

    version: ClassVar[int] = 2
    own_text: ClassVar[bool] = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of units that may be removed; in a joint ranking also blocks, by what they add per sublayer."""
        return (*SUBLAYERS, BLOCK) if self.unit == "sublayer" else super().kinds

    def cost(self, decoder: Decoder, trajectory: Trajectory) -> Cost:
        return DensePredictions(head_of(decoder, torch.float32), trajectory, self.confidence).divergence


class DensePredictions:
    """The dense model's predictions at every position of a trajectory.

    Positions are weighted by their largest probability to the power of ``confidence``. Predictions that do not fit in
    memory are computed anew each time.
    """

    def __init__(self, head: Head, trajectory: Trajectory, confidence: float) -> None:
        self._head, self._final, self._confidence = head, trajectory.final, confidence
        self._kept: dict[int, _Predictions] = {}
        self._room = memory_budget(head.weight.device)
        # Reused, since fresh memory of this size would have to be cleared each time.
        shape = min(_ROWS, len(trajectory.final)), head.vocabulary
        self._z = torch.empty(shape, device=head.weight.device)

    def divergence(self, states: Iterator[torch.Tensor]) -> float:
        """Compute the weighted mean KL(dense‖other), nats per token, of another model's states at these positions."""
        other = torch.cat(list(states))
        total = weight = 0.0
        for start in range(0, len(other), _ROWS):
            dense = self._dense(start)
            kl = cross_entropy(dense.p, self._logits(other, start)) - dense.entropy
            total += float((dense.weights * kl).sum())
            weight += float(dense.weights.sum())
        # Equal states may come out below zero, by rounding.
        return max(total / weight, 0.0)

    def _logits(self, states: torch.Tensor, start: int) -> torch.Tensor:
        """Compute the logits of the rows from ``start`` on, valid until the next call, which overwrites them."""
        rows = states[start : start + _ROWS].to(self._head.weight.device)
        return self._head.logits(rows, out=self._z[: len(rows)])

    def _dense(self, start: int) -> _Predictions:
        if start in self._kept:
            return self._kept[start]
        z = self._logits(self._final, start)
        p = normalised(z)
        found = _Predictions(p, cross_entropy(p, z), position_weights(p, self._confidence))
        if p.nbytes <= self._room:
            self._kept[start] = found
            self._room -= p.nbytes
        return found


@dataclass(frozen=True)
class _Predictions:
    """Probabilities ``p`` (N, V), their ``entropy`` (N,) in nats, and the positions' ``weights`` (N,)."""

    p: torch.Tensor
    entropy: torch.Tensor
    weights: torch.Tensor


def position_weights(p: torch.Tensor, confidence: float) -> torch.Tensor:
    """Return position weights (N,) float64: the largest of the probabilities (N, V) to the power ``confidence``."""
    return p.amax(-1).double() ** confidence
