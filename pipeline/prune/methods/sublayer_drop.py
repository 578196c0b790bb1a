"""Attention, MLP and Joint Drop: remove the sublayers that turn the residual stream least (arXiv 2406.15786)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import ATTENTION, MLP, SUBLAYERS, Decoder
from pipeline.prune.base import Context, Pruner, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.cosine import sublayer_cosines


@dataclass(frozen=True)
class SublayerPruner(Pruner):
    """Scores ``1 - mean cos(x, x + f(norm(x)))`` per sublayer; ``kinds`` are those that may go."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    kinds: ClassVar[tuple[str, ...]] = SUBLAYERS

    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        cosines = sublayer_cosines(decoder, context)
        return [
            {"layer": index // 2, "sublayer": SUBLAYERS[index % 2], "score": 1.0 - value}
            for index, value in enumerate(cosines)
        ]

    def units(self, decoder: Decoder, sparsity: Sparsity) -> int:
        """How many sublayers a sparsity asks for, of those that may go."""
        return sparsity.units_of(len(decoder.blocks) * len(self.kinds))

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        scores = context.scores({})
        mine = sorted((row for row in scores if row["sublayer"] in self.kinds), key=lambda row: row["score"])
        return drop_sublayers(
            [(row["sublayer"], row["layer"]) for row in mine[: self.units(decoder, sparsity)]], scores
        )


def drop_sublayers(sublayers: Iterable[tuple[str, int]], scores: list[Score]) -> Decision:
    """The decision that drops sublayers given by kind and layer number."""
    chosen = sorted(sublayers)
    return Decision(
        attention=tuple(layer for kind, layer in chosen if kind == ATTENTION),
        mlp=tuple(layer for kind, layer in chosen if kind == MLP),
        scores=scores,
    )


@dataclass(frozen=True)
class AttentionDrop(SublayerPruner):
    """Drops whole attention sublayers."""

    unit: ClassVar[str] = "attention"
    kinds: ClassVar[tuple[str, ...]] = (ATTENTION,)


@dataclass(frozen=True)
class MLPDrop(SublayerPruner):
    """Drops whole MLP sublayers."""

    unit: ClassVar[str] = "mlp"
    kinds: ClassVar[tuple[str, ...]] = (MLP,)


@dataclass(frozen=True)
class JointDrop(SublayerPruner):
    """Drops attention and MLP sublayers, whichever are lowest in one ranking of all 2L."""

    unit: ClassVar[str] = "sublayer"
