"""Magnitude pruning: zero the smallest weights of each linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder, Linear
from pipeline.model.offload import resident
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import Change, Decision
from pipeline.prune.methods.masks import per_matrix, weight_masks


@dataclass(frozen=True)
class WeightwisePruner(Pruner):
    """A pruner that treats each weight matrix alone, without calibration. Implement ``mask``."""

    version: ClassVar[int] = 2
    accepts: ClassVar[tuple[str, ...]] = ("fraction", "pattern")
    unit: ClassVar[str] = "weight"
    calibrated: ClassVar[bool] = False

    def mask(self, weight: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
        """Return which of the (out, in) weights of a matrix to prune: a boolean tensor of their shape."""
        raise TypeError(f"pruner {type(self).__name__} does not define mask()")

    def zeros(self, rows: int, columns: int, share: float) -> int:
        """Return how many weights of a matrix it zeroes at a fraction."""
        return int(rows * columns * share)

    def change(self, linears: Sequence[Linear], sparsity: Sparsity) -> Change:
        """Return the change of a block with these matrices."""
        return Change(masks=weight_masks(linears, lambda _, weight: self.mask(weight, sparsity)))

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        if sparsity.is_zero:
            return Decision()
        return self.decide_each(decoder, [sparsity] * len(decoder.blocks), context)

    @torch.no_grad()
    def decide_each(self, decoder: Decoder, sparsities: Sequence[Sparsity], context: Context) -> Decision:
        """Decide with a sparsity for each block."""
        for layer in context.progress(range(len(sparsities)), self.name, len(sparsities)):
            with resident(decoder.blocks[layer]):
                context.changes[layer] = self.change(decoder.linears(layer), sparsities[layer])
        return Decision(changes=context.changes)


@dataclass(frozen=True)
class Magnitude(WeightwisePruner):
    """Prunes by a threshold on |W| over each linear layer inside the decoder blocks.

    ``inclusive`` also prunes the entry at the threshold, one more than asked for, as public reference code does.
    """

    inclusive: bool = False

    def mask(self, weight: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
        return per_matrix(weight.abs().float(), sparsity, self.inclusive)
