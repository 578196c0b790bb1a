"""Divergence: remove the units whose removal changes the model's own continuations least, in probability space.

The criterion is KL(dense‖pruned) at the positions that predict the dense model's own generation (section 7 of the
paper shows that this is where generation breaks), measured teacher-forced: one parallel pass per candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
# All positions count alike: a power above 0 would be a choice made on some tasks. What it does is in docs/findings.md.
CONFIDENCE = 0.0


@dataclass(frozen=True)
class Divergence(UnitSearch):
    """Drops units one after the other, each time the one that adds least to the divergence: see `UnitSearch`.

    Positions may be weighted by the dense model's largest probability to the power of ``confidence``.
    """

    confidence: float = CONFIDENCE

    version: ClassVar[int] = 3

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
        shape = _ROWS, head.vocabulary
        self._z = torch.empty(shape, device=head.weight.device)

    def divergence(self, states: Iterable[torch.Tensor]) -> float:
        """Compute the weighted mean KL(dense‖other), nats per token, of another model's states, per pass (N_i, D)."""
        total, start = 0.0, 0
        for part in states:
            total += self.added(start, part.unsqueeze(0))[0]
            start += len(part)
        return total

    def cost(self) -> Cost:
        """Return this divergence as a cost."""
        return Cost(self.added)

    def added(self, start: int, states: torch.Tensor) -> list[float]:
        """Compute what the states (k, n, D) of k models, at positions from ``start`` on, add to their divergences."""
        totals = [0.0] * len(states)
        for first in range(0, states.shape[1], _ROWS):
            rows = states[:, first : first + _ROWS]
            dense = self._dense(start + first, rows.shape[1])
            for at, z in enumerate(self._logits_of_each(rows)):
                kl = cross_entropy(dense.p, z) - dense.entropy
                # Equal states may come out below zero, by rounding; what is not a number has to stay that.
                totals[at] += float((dense.weights * kl).sum().clamp_(min=0))
        return [total / self._weight for total in totals]

    @cached_property
    def _weight(self) -> float:
        """The sum of the weights of all positions."""
        parts = self._final.split(_ROWS)
        return sum(float(position_weights(normalised(self._logits(rows)), self._confidence).sum()) for rows in parts)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        """Compute the logits of states, valid until the next call, which overwrites them."""
        return self._head.logits(states.to(self._head.weight.device), out=self._z[: len(states)])

    def _logits_of_each(self, states: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the logits (n, V) of the states (k, n, D) of each model, computed for several at once."""
        for some in states.split(max(1, _ROWS // states.shape[1])):
            yield from self._logits(some.flatten(0, 1)).unflatten(0, some.shape[:2])

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
