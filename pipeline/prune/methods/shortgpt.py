"""ShortGPT: remove the blocks with the lowest block influence (Men et al., arXiv 2403.03853)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder
from pipeline.model.structure import BLOCK
from pipeline.prune.base import Context, Pruner, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.cosine import block_cosines


@dataclass(frozen=True)
class ShortGPT(Pruner):
    """Removes the blocks of lowest block influence, scored once.

    ``BI_i = 1 - mean cos(block input, block output)``, over calibration tokens.
    """

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    unit: ClassVar[str] = "block"

    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        cosines = block_cosines(decoder, context)
        return [{"layer": layer, "sublayer": "block", "score": 1.0 - value} for layer, value in enumerate(cosines)]

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        scores, count = context.scores({}), blocks_to_remove(decoder, sparsity)
        ranked = sorted(scores, key=lambda row: row["score"])
        return Decision(blocks=tuple(sorted(row["layer"] for row in ranked[:count])), scores=scores)


@dataclass(frozen=True)
class IterativeShortGPT(ShortGPT):
    """Removes blocks one at a time, by block influence on the model without those removed before."""

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        gone: list[int] = []
        path: list[Score] = []
        for step in range(blocks_to_remove(decoder, sparsity)):
            rows = context.scores({BLOCK: sorted(gone)})
            best = min((row for row in rows if row["layer"] not in gone), key=lambda row: row["score"])
            gone.append(best["layer"])
            path.append({**best, "step": step})
        return Decision(blocks=tuple(sorted(gone)), scores=path)


def blocks_to_remove(decoder: Decoder, sparsity: Sparsity) -> int:
    """Return how many blocks a sparsity asks for. Raises ValueError if that is all of them."""
    total = len(decoder.blocks)
    count = sparsity.units_of(total)
    if count == total:
        raise ValueError(f"sparsity={sparsity.given} removes all {count} blocks; leave at least one")
    return count
