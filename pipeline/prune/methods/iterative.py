"""Iterative dropping: drop the least important unit, score what is left again, and so on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import ATTENTION, BLOCK, MLP, SUBLAYERS, Decoder
from pipeline.prune.base import Context, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.shortgpt import ShortGPT, blocks_to_remove
from pipeline.prune.methods.sublayer_drop import SublayerPruner, drop_sublayers


@dataclass(frozen=True)
class IterativeDrop(SublayerPruner):
    """One sublayer at a time, each chosen on the model without the earlier ones. ``scores`` is the path taken.

    A dropped sublayer no longer turns the stream at all, so it is left out of the ranking, not ranked first.
    """

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        gone: list[tuple[str, int]] = []
        path: list[Score] = []
        for step in range(self.units(decoder, sparsity)):
            rows = context.scores({kind: sorted(n for k, n in gone if k == kind) for kind in SUBLAYERS})
            left = [
                row for row in rows if row["sublayer"] in self.kinds and (row["sublayer"], row["layer"]) not in gone
            ]
            best = min(left, key=lambda row: row["score"])
            gone.append((best["sublayer"], best["layer"]))
            path.append({**best, "step": step})
        return drop_sublayers(gone, path)


@dataclass(frozen=True)
class IterativeAttentionDrop(IterativeDrop):
    """Drops attention sublayers one at a time."""

    unit: ClassVar[str] = "attention"
    kinds: ClassVar[tuple[str, ...]] = (ATTENTION,)


@dataclass(frozen=True)
class IterativeMLPDrop(IterativeDrop):
    """Drops MLP sublayers one at a time."""

    unit: ClassVar[str] = "mlp"
    kinds: ClassVar[tuple[str, ...]] = (MLP,)


@dataclass(frozen=True)
class IterativeJointDrop(IterativeDrop):
    """Drops attention and MLP sublayers one at a time, in one ranking."""

    unit: ClassVar[str] = "sublayer"


@dataclass(frozen=True)
class IterativeBlockDrop(ShortGPT):
    """Removes blocks one at a time by block influence on the model without the earlier ones."""

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        gone: list[int] = []
        path: list[Score] = []
        for step in range(blocks_to_remove(decoder, sparsity)):
            rows = context.scores({BLOCK: sorted(gone)})
            best = min((row for row in rows if row["layer"] not in gone), key=lambda row: row["score"])
            gone.append(best["layer"])
            path.append({**best, "step": step})
        return Decision(blocks=tuple(sorted(gone)), scores=path)
