"""Pruners of whole units: which units there are, how many a sparsity asks for, and the decision to remove some."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.config.sparsity import Sparsity
from pipeline.config.types import UnitKind
from pipeline.model.decoder import Decoder
from pipeline.model.structure import ATTENTION, BLOCK, MLP, SUBLAYERS
from pipeline.prune.base import Pruner, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.search import Step
from pipeline.prune.methods.shortgpt import blocks_to_remove

# Stands for the step's number in the score of a unit that is removed alone.
ALONE = -1
# Kind and layer number.
Unit = tuple[str, int]


@dataclass(frozen=True)
class UnitPruner(Pruner):
    """Removes units of one kind, which ``unit`` names: attention sublayers, MLP sublayers, blocks, or a joint ranking.

    A block counts as its two sublayers where these may be removed by themselves, too.
    """

    unit: UnitKind = "attention"  # type: ignore[misc]

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of units that may be removed."""
        return SUBLAYERS if self.unit == "sublayer" else (self.unit,)

    def scoring_identity(self) -> dict[str, Any]:
        """Return what scores depend on, without ``unit``: it decides which units may be removed, not their scores."""
        identity = super().scoring_identity()
        del identity["unit"]
        return identity

    def count(self, decoder: Decoder, sparsity: Sparsity) -> int:
        """Return how many units a sparsity asks for."""
        if self.kinds == (BLOCK,):
            return blocks_to_remove(decoder, sparsity)
        return sparsity.units_of(sum(kind != BLOCK for kind, _ in self.units(decoder)))

    def units(self, decoder: Decoder) -> list[Unit]:
        """Return the units that a model has.

        Beside sublayers, a block is one only where it has both: a block of a single sublayer is gone with that.
        """
        found = []
        for at in range(len(decoder.blocks)):
            own = [kind for kind in SUBLAYERS if decoder.has(at, kind)]
            beside = BLOCK in self.kinds and (len(self.kinds) == 1 or len(own) > 1)
            found += [(kind, at) for kind in self.kinds if kind in own or (kind == BLOCK and beside)]
        return found

    def parts(self, unit: Unit) -> frozenset[Hashable]:
        """Return what a unit of `units` consists of: a block is its two sublayers where these are units, too."""
        kind, layer = unit
        both = kind == BLOCK and len(self.kinds) > 1
        return frozenset((kind, layer) for kind in SUBLAYERS) if both else frozenset([unit])

    def decision(
        self,
        decoder: Decoder,
        path: Sequence[Step[Unit]],
        alone: Mapping[Unit, float],
        spread: Callable[[Sequence[Unit]], float] | None = None,
    ) -> Decision:
        """Return the decision of a path. Its scores are the cost of every unit ``alone``, then the steps of the path.

        ``spread`` gives the standard error of the cost of a set, where costs are estimates.
        """
        gone = [step.unit for step in path]
        blocks = {layer for kind, layer in gone if kind == BLOCK}
        if len(blocks) == len(decoder.blocks):
            # A model keeps its last block, even if nothing is left in it.
            gone = [unit for unit in gone if unit[0] != BLOCK] + [(kind, at) for kind in SUBLAYERS for at in blocks]
        scores = list(_rows(path, alone))
        if spread:
            sets = [[unit] for unit in alone] + [[step.unit for step in path[: at + 1]] for at in range(len(path))]
            scores = [row | {"spread": spread(units)} for row, units in zip(scores, sets, strict=True)]
        return decision_of(gone, scores)


def decision_of(gone: Iterable[Unit], scores: list[Score]) -> Decision:
    """Return the decision that removes these units."""
    layers = by_kind(list(gone))
    blocks, attention, mlp = (tuple(layers.get(kind, ())) for kind in (BLOCK, ATTENTION, MLP))
    return Decision(blocks=blocks, attention=attention, mlp=mlp, scores=scores)


def by_kind(units: Sequence[Unit]) -> dict[str, list[int]]:
    """Return the layer numbers of units by kind."""
    kinds = sorted({kind for kind, _ in units})
    return {kind: sorted(layer for other, layer in units if other == kind) for kind in kinds}


def _rows(path: Sequence[Step[Unit]], alone: Mapping[Unit, float]) -> Iterator[Score]:
    for (kind, layer), cost in alone.items():
        yield {"layer": layer, "sublayer": kind, "score": cost, "step": ALONE, "questions": 0}
    for number, step in enumerate(path):
        kind, layer = step.unit
        yield {"layer": layer, "sublayer": kind, "score": step.cost, "step": number, "questions": step.questions}
