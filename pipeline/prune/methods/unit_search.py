"""Pruners that search: units are removed one after the other, each time the one that adds least to a measured cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch

from pipeline.config.component import stable_name
from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Positive
from pipeline.model.decoder import Decoder
from pipeline.model.trajectory import Trajectory, forwards
from pipeline.prune.base import Context, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.search import Part, batched, beam, best_first, greedy
from pipeline.prune.methods.unit_costs import Cost, UnitCosts, unit_costs
from pipeline.prune.methods.units import ALONE, Unit, UnitPruner, by_kind
from pipeline.prune.surgery import dropped


@dataclass(frozen=True)
class UnitSearch(UnitPruner):
    """Removes units one after the other, each time the one that adds least to the cost of the set.

    A candidate is given up as soon as what it is known to add, on a part of the text, is more than the best one adds on
    all of it: this finds what measuring all candidates in full would. ``lazy`` measures in full, but only candidates
    that added less than the best one when last measured; it misses those whose addition fell since. With ``beam`` above
    1, that many sets are followed side by side, and all candidates are measured in full; ``lazy`` beside it raises
    ValueError.

    ``scores`` are the units alone, then the path taken. ``measured`` is the share of the predictions that were
    measured, below 1 for a candidate that was given up, whose score is a lower bound. ``forward_tokens`` of a step are
    the tokens sent through the model to choose it, where a candidate counts by the blocks from its own on: those before
    it are computed once for all candidates. Implement ``cost``.
    """

    lazy: bool = False
    beam: Positive = 1

    compares: ClassVar[bool] = True
    own_text: ClassVar[bool] = True

    @property
    def gives_up(self) -> bool:
        """Whether candidates are given up part way."""
        return not self.lazy and self.beam == 1

    def cost(self, decoder: Decoder, trajectory: Trajectory) -> Cost:
        """Return the cost of a model as a sum over the predictions of a trajectory."""
        raise TypeError(f"pruner {type(self).__name__} does not define cost()")

    def scoring_identity(self) -> dict[str, Any]:
        """Return what scores depend on: of the search options, only whether candidates are given up."""
        definer: Any = next(cls for cls in type(self).__mro__ if "cost" in cls.__dict__)
        identity = super().scoring_identity() | {"type": stable_name(definer), "version": definer.version}
        shared = {key: value for key, value in identity.items() if key not in ("lazy", "beam")}
        return shared | {"gives_up": self.gives_up}

    @torch.inference_mode()
    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Measure the cost with each of ``context.candidates`` dropped, besides what is dropped already."""
        trajectory = context.trajectory
        assert trajectory is not None
        costs = context.setup.once(
            decoder.model, lambda: unit_costs(decoder, trajectory, self.cost(decoder, trajectory))
        )
        costs.forget_others()

        def part(units: Sequence[Unit], piece: int) -> list[float]:
            return costs.part([(unit[1], partial(dropped, decoder, by_kind([unit]))) for unit in units], piece)

        known = self._cheapest(costs, decoder, context, part) if self.gives_up else self._all(costs, context, part)
        return [_row(costs, unit, parts, len(decoder.blocks)) for unit, parts in known.items()]

    def _all(self, costs: UnitCosts, context: Context, part: Part[Unit]) -> dict[Unit, dict[int, float]]:
        """Measure every candidate in full."""
        pieces, units = range(len(costs.tokens)), context.candidates
        known: dict[Unit, dict[int, float]] = {unit: {} for unit in units}
        asked = [(some, piece) for some in batched(units, costs.together) for piece in pieces]
        for some, piece in context.progress(asked, self.name, len(asked)):
            for unit, value in zip(some, part(some, piece), strict=True):
                known[unit][piece] = value
        return known

    def _cheapest(
        self, costs: UnitCosts, decoder: Decoder, context: Context, part: Part[Unit]
    ) -> dict[Unit, dict[int, float]]:
        """Measure candidates until one is known to add least, where the model has lost most so far first."""
        base = costs.parts(len(decoder.blocks) - 1)
        lost = base if any(base) else costs.predictions
        pieces = sorted(range(len(base)), key=lambda piece: -lost[piece] / costs.tokens[piece])

        def added(unit: Unit, parts: Sequence[float]) -> float:
            return (costs.total(parts) - costs.total(base)) / len(self.parts(unit))

        def progress(questions: Iterable[int], most: int) -> Iterable[int]:
            return context.progress(questions, self.name, most)

        return best_first(context.candidates, pieces, part, added, progress, costs.together)

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        if self.lazy and self.beam > 1:
            raise ValueError(
                f"pruner.lazy=true follows one set, and pruner.beam={self.beam} several: give one of the two"
            )
        alone: dict[Unit, Score] = {}
        # By how many parts were gone: a beam asks for several sets of a size.
        sent: Counter[int] = Counter()

        def costs(gone: Sequence[Unit], candidates: Sequence[Unit]) -> dict[Unit, float]:
            rows = {(row["sublayer"], int(row["layer"])): row for row in context.scores(by_kind(gone), candidates)}
            sent[self._size(gone)] += sum(row["forward_tokens"] for row in rows.values())
            if not gone:
                alone.update(rows)
            return {unit: float(row["score"]) for unit, row in rows.items()}

        units, count = self.units(decoder), self.count(decoder, sparsity)
        if self.beam > 1:
            path = beam(units, count, costs, self.beam, self.parts)
        else:
            path = greedy(units, count, costs, self.lazy, self.parts)
        gone = [step.unit for step in path]

        def told(row: Score) -> Score:
            if row["step"] == ALONE:
                return {"measured": alone[row["sublayer"], row["layer"]]["measured"], "forward_tokens": 0.0}
            sizes = range(self._size(gone[: row["step"]]), self._size(gone[: row["step"] + 1]))
            return {"measured": 1.0, "forward_tokens": float(sum(sent[size] for size in sizes))}

        decision = self.decision(decoder, path, {unit: float(row["score"]) for unit, row in alone.items()})
        return replace(decision, scores=[row | told(row) for row in decision.scores])

    def _size(self, units: Sequence[Unit]) -> int:
        """Return how many parts some units have."""
        return len(frozenset[Hashable]().union(*map(self.parts, units)))


def _row(costs: UnitCosts, unit: Unit, parts: Mapping[int, float], blocks: int) -> Score:
    """Return the score of a unit from the parts that are known."""
    kind, layer = unit
    return {
        "layer": layer,
        "sublayer": kind,
        "score": costs.total(parts.values()),
        "measured": sum(costs.predictions[piece] for piece in parts) / sum(costs.predictions),
        "forward_tokens": sum(costs.tokens[piece] for piece in parts) * (blocks - layer) / blocks,
    }


def tokens_of(trajectory: Trajectory) -> int:
    """Return how many tokens one pass over a trajectory sends through the model, prompts and padding included."""
    return sum(len(forward.prompts) * forward.width for forward in forwards(trajectory, tight=True))
