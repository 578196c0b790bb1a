"""Magnitude pruning: the smallest weights of each linear layer go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.decoder import Decoder
from pipeline.offload import resident
from pipeline.pruners.base import Context, Pruner
from pipeline.pruners.decision import Change, Decision
from pipeline.pruners.masks import per_matrix, weight_masks
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class WeightwisePruner(Pruner):
    """A pruner that looks at each weight matrix alone, without calibration. Implement ``mask``."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "pattern")
    unit: ClassVar[str] = "weight"
    calibrated: ClassVar[bool] = False

    def mask(self, weight: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
        """Which of the (out, in) weights of a matrix to prune: a boolean tensor of their shape."""
        raise TypeError(f"pruner {type(self).__name__} does not define mask()")

    @torch.no_grad()
    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        layers = range(len(decoder.blocks)) if not sparsity.is_zero else range(0)
        for layer in context.progress(layers, self.name, len(layers)):
            with resident(decoder.blocks[layer]):
                context.changes[layer] = Change(
                    masks=weight_masks(decoder.linears(layer), lambda _, w: self.mask(w, sparsity))
                )
        return Decision(changes=context.changes)


@dataclass(frozen=True)
class Magnitude(WeightwisePruner):
    """Threshold on |W| over each linear layer inside the decoder blocks.

    ``inclusive`` also prunes the entry at the threshold, one more than asked for, as public reference code does.
    """

    inclusive: bool = False

    def mask(self, weight: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
        return per_matrix(weight.abs().float(), sparsity, self.inclusive)
