"""Attention, MLP and Joint Drop: remove the sublayers that turn the residual stream least (arXiv 2406.15786)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder
from pipeline.prune.base import Context, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.cosine import sublayer_cosines
from pipeline.prune.methods.units import Unit, UnitPruner, by_kind, decision_of


@dataclass(frozen=True)
class SublayerDrop(UnitPruner):
    """Drops the sublayers of lowest ``1 - mean cos(x, x + f(norm(x)))``, scored once."""

    unit: Literal["attention", "mlp", "sublayer"] = "attention"  # type: ignore[misc]

    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        cosines = sublayer_cosines(decoder, context)
        return [
            {"layer": sublayer.layer, "sublayer": sublayer.kind, "score": 1.0 - value}
            for sublayer, value in zip(decoder.sublayers(), cosines, strict=True)
        ]

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        scores = context.scores({})
        mine = sorted((row for row in scores if row["sublayer"] in self.kinds), key=lambda row: row["score"])
        return decision_of(map(_unit, mine[: self.count(decoder, sparsity)]), scores)


@dataclass(frozen=True)
class IterativeSublayerDrop(SublayerDrop):
    """Drops one sublayer at a time, chosen on the model without those dropped before. ``scores`` is the path taken.

    A dropped sublayer no longer turns the residual stream, so it is left out of the ranking, not ranked first.
    """

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        gone: list[Unit] = []
        path: list[Score] = []
        for step in range(self.count(decoder, sparsity)):
            rows = context.scores(by_kind(gone))
            left = [row for row in rows if row["sublayer"] in self.kinds and _unit(row) not in gone]
            best = min(left, key=lambda row: row["score"])
            gone.append(_unit(best))
            path.append({**best, "step": step})
        return decision_of(gone, path)


def _unit(row: Score) -> Unit:
    return row["sublayer"], row["layer"]
