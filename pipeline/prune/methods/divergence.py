"""Divergence: remove the units whose removal changes the model's own continuations least, in probability space.

The criterion is KL(dense‖pruned) at the positions that predict the dense model's own generation (section 7 of the
paper shows that this is where generation breaks), measured teacher-forced: one parallel pass per candidate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch

from pipeline.model.activations import memory_budget
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.proof import head_of
from pipeline.model.softmax import cross_entropy, normalised
from pipeline.model.structure import BLOCK, SUBLAYERS
from pipeline.model.trajectory import Trajectory
from pipeline.prune.methods.unit_costs import Cost
from pipeline.prune.methods.unit_search import UnitSearch

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

    version: ClassVar[int] = 3
    own_text: ClassVar[bool] = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of units that may be removed; in a joint ranking also blocks, by what they add per sublayer."""
        return (*SUBLAYERS, BLOCK) if self.unit == "sublayer" else super().kinds

    def cost(self, decoder: Decoder, trajectory: Trajectory) -> Cost:
        return DensePredictions(head_of(decoder, torch.float32), trajectory, self.confidence).cost()


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

    def divergence(self, states: Iterable[torch.Tensor]) -> float:
        """Compute the weighted mean KL(dense‖other), nats per token, of another model's states, per pass (N_i, D)."""
        total, start = 0.0, 0
        for part in states:
            total += self.added(start, part)
            start += len(part)
        return total

    def cost(self) -> Cost:
        """Return this divergence as a cost."""
        return Cost(self.added)

    def added(self, start: int, states: torch.Tensor) -> float:
        """Compute what another model's states (n, D), at the positions from ``start`` on, add to the divergence."""
        total = 0.0
        for first in range(0, len(states), _ROWS):
            rows = states[first : first + _ROWS]
            dense = self._dense(start + first, len(rows))
            kl = cross_entropy(dense.p, self._logits(rows)) - dense.entropy
            # Equal states may come out below zero, by rounding.
            total += max(0.0, float((dense.weights * kl).sum()))
        return total / self._weight

    @cached_property
    def _weight(self) -> float:
        """The sum of the weights of all positions."""
        parts = self._final.split(_ROWS)
        return sum(float(position_weights(normalised(self._logits(rows)), self._confidence).sum()) for rows in parts)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        """Compute the logits of states, valid until the next call, which overwrites them."""
        return self._head.logits(states.to(self._head.weight.device), out=self._z[: len(states)])

    def _dense(self, start: int, count: int) -> _Predictions:
        """Return the predictions at ``count`` positions; each position belongs to the same stretch at every call."""
        if start in self._kept:
            return self._kept[start]
        z = self._logits(self._final[start : start + count])
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
