"""Pruners that search: units are removed one after the other, each time the one that adds least to a measured cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from pipeline.config.component import stable_name
from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Positive
from pipeline.model.decoder import Decoder
from pipeline.model.prefix import SharedPrefix, shared_prefix
from pipeline.model.trajectory import Trajectory, forwards
from pipeline.prune.base import Context, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.search import beam, greedy
from pipeline.prune.methods.units import ALONE, Unit, UnitPruner, by_kind
from pipeline.prune.surgery import dropped

# The cost of a model, from its final states at the predictions of a trajectory, per pass (N_i, D): 0 for the dense one.
Cost = Callable[[Iterator[torch.Tensor]], float]


@dataclass(frozen=True)
class UnitSearch(UnitPruner):
    """Removes units one after the other, each time the one that adds least to the cost of the set.

    ``lazy`` scores again only candidates that may still be the best; with ``beam`` above 1, that many sets are followed
    side by side, and all candidates are scored. ``scores`` are the units alone, then the path taken, with the
    ``forward_tokens`` of every step: the tokens that were sent through the model to choose it, where a candidate counts
    by the blocks from its own on. Those before it are computed once for all candidates. Implement ``cost``.
    """

    lazy: bool = True
    beam: Positive = 1

    compares: ClassVar[bool] = True

    def cost(self, decoder: Decoder, trajectory: Trajectory) -> Cost:
        """Return the function that measures what a pruned model's predictions on a trajectory cost."""
        raise TypeError(f"pruner {type(self).__name__} does not define cost()")

    def scoring_identity(self) -> dict[str, Any]:
        """Return what scores depend on: not search options, which decide which candidates are scored."""
        definer: Any = next(cls for cls in type(self).__mro__ if "cost" in cls.__dict__)
        identity = super().scoring_identity() | {"type": stable_name(definer), "version": definer.version}
        return {key: value for key, value in identity.items() if key not in ("lazy", "beam")}

    @torch.inference_mode()
    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Measure the cost with each of ``context.candidates`` dropped, besides what is dropped already."""
        cost, prefix = context.setup.once(decoder.model, lambda: self._measuring(decoder, context))
        rows: list[Score] = []
        for kind, layer in context.progress(context.candidates, self.name, len(context.candidates)):
            with dropped(decoder, {kind: [layer]}):
                rows.append({"layer": layer, "sublayer": kind, "score": cost(prefix.final(layer))})
        return rows

    @contextmanager
    def _measuring(self, decoder: Decoder, context: Context) -> Iterator[tuple[Cost, SharedPrefix]]:
        assert context.trajectory is not None
        with shared_prefix(decoder, list(forwards(context.trajectory, tight=True))) as prefix:
            yield self.cost(decoder, context.trajectory), prefix

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        assert context.trajectory is not None
        alone: dict[Unit, float] = {}
        blocks, a_pass = len(decoder.blocks), tokens_of(context.trajectory)
        sent: Counter[frozenset[Unit]] = Counter()

        def costs(gone: Sequence[Unit], candidates: Sequence[Unit]) -> dict[Unit, float]:
            rows = context.scores(by_kind(gone), candidates)
            found = {(row["sublayer"], int(row["layer"])): float(row["score"]) for row in rows}
            sent[frozenset(gone)] += sum(a_pass * (blocks - layer) for _, layer in candidates)
            if not gone:
                alone.update(found)
            return found

        units, count = self.units(decoder), self.count(decoder, sparsity)
        if self.beam > 1:
            path = beam(units, count, costs, self.beam, self.parts)
        else:
            path = greedy(units, count, costs, self.lazy, self.parts)
        gone = [step.unit for step in path]

        def tokens(row: Score) -> float:
            return 0.0 if row["step"] == ALONE else sent[frozenset(gone[: row["step"]])] / blocks

        decision = self.decision(decoder, path, alone)
        return replace(decision, scores=[row | {"forward_tokens": tokens(row)} for row in decision.scores])


def tokens_of(trajectory: Trajectory) -> int:
    """Return how many tokens one pass over a trajectory sends through the model, prompts and padding included."""
    return sum(len(forward.prompts) * forward.width for forward in forwards(trajectory, tight=True))
