"""Divergence: remove the units whose removal changes the model's own continuations least, in probability space.

The criterion is KL(dense‖pruned) at the positions that predict the dense model's own generation (section 7 of the
paper shows that this is where generation breaks), measured teacher-forced: one parallel pass per candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Positive
from pipeline.model.activations import memory_budget
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.prefix import SharedPrefix, shared_prefix
from pipeline.model.proof import head_of
from pipeline.model.softmax import cross_entropy, normalised
from pipeline.model.structure import BLOCK, SUBLAYERS
from pipeline.model.trajectory import Trajectory, forwards
from pipeline.prune.base import Context, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.search import beam, greedy
from pipeline.prune.methods.units import Unit, UnitPruner, by_kind
from pipeline.prune.surgery import dropped

# Positions whose logits are computed at a time.
_ROWS = 256
# The power at which KL at single positions agrees best with how much of whole answers is retained.
CONFIDENCE = 4.0


@dataclass(frozen=True)
class Divergence(UnitPruner):
    """Drops units one after the other, each time the one that adds least to the divergence.

    ``lazy`` scores again only candidates that may still be the best; with ``beam`` above 1, that many sets are followed
    side by side, and all candidates are scored. Positions are weighted by the dense model's largest probability to the
    power of ``confidence``. ``scores`` are the units alone, then the path taken.
    """

    lazy: bool = True
    beam: Positive = 1
    confidence: float = CONFIDENCE

    version: ClassVar[int] = 2
    compares: ClassVar[bool] = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of units that may be removed; in a joint ranking also blocks, by what they add per sublayer."""
        return (*SUBLAYERS, BLOCK) if self.unit == "sublayer" else super().kinds

    def scoring_identity(self) -> dict[str, Any]:
        """Return what scores depend on: not search options, which decide which candidates are scored."""
        identity = super().scoring_identity()
        return {key: value for key, value in identity.items() if key not in ("lazy", "beam")}

    @torch.inference_mode()
    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Measure the divergence with each of ``context.candidates`` dropped, besides what is dropped already."""
        dense, prefix = context.setup.once(decoder.model, lambda: self._comparing(decoder, context))
        rows: list[Score] = []
        for kind, layer in context.progress(context.candidates, "divergence", len(context.candidates)):
            with dropped(decoder, {kind: [layer]}):
                value = dense.divergence(prefix.final(layer))
            rows.append({"layer": layer, "sublayer": kind, "score": value})
        return rows

    @contextmanager
    def _comparing(self, decoder: Decoder, context: Context) -> Iterator[tuple[DensePredictions, SharedPrefix]]:
        trajectory = context.trajectory
        assert trajectory is not None
        with shared_prefix(decoder, list(forwards(trajectory, tight=True))) as prefix:
            yield DensePredictions(head_of(decoder, torch.float32), trajectory, self.confidence), prefix

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        alone: dict[Unit, float] = {}

        def costs(gone: Sequence[Unit], candidates: Sequence[Unit]) -> dict[Unit, float]:
            rows = context.scores(by_kind(gone), candidates)
            found = {(row["sublayer"], int(row["layer"])): float(row["score"]) for row in rows}
            if not gone:
                alone.update(found)
            return found

        units, count = self.units(decoder), self.count(decoder, sparsity)
        if self.beam > 1:
            path = beam(units, count, costs, self.beam, self.parts)
        else:
            path = greedy(units, count, costs, self.lazy, self.parts)
        return self.decision(decoder, path, alone)


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
