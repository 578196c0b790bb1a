"""Round-to-nearest: weight-only quantization that needs no text. It is not pruning, but compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Bits, Positive
from pipeline.model.decoder import Decoder
from pipeline.model.offload import resident
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import Change, Decision
from pipeline.prune.methods.masks import new_weights


@dataclass(frozen=True)
class RoundToNearest(Pruner):
    """Rounds every weight matrix to ``bits`` bits, with a scale and a zero point per ``group`` columns of each row.

    Takes no sparsity: nothing is removed. The weights are stored as the values that the codes stand for.
    """

    version: ClassVar[int] = 2
    unit: ClassVar[str] = "weight"
    calibrated: ClassVar[bool] = False
    bits: Bits = 4
    group: Positive = 128

    @torch.no_grad()
    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        layers = range(len(decoder.blocks))
        for layer in context.progress(layers, self.name, len(layers)):
            with resident(decoder.blocks[layer]):
                weights = new_weights(
                    decoder.linears(layer), lambda name, weight: round_to_nearest(weight, self.bits, self.group)
                )
                context.changes[layer] = Change(weights=weights)
        return Decision(changes=context.changes)


def round_to_nearest(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Round to the nearest values of ``bits`` per weight, with a scale and a zero point per ``group`` input columns.

    (out, in) float32 to the same shape and dtype. Asymmetric: each group's range runs from its lowest to its highest
    weight, zero included. The last group of a row is shorter if ``group`` does not divide the columns.
    Raises ValueError for bits outside 2..8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"pruner.bits={bits} should be from 2 to 8")
    return torch.cat([_round(part, 2**bits - 1) for part in weight.split(group, dim=1)], dim=1)


def _round(part: torch.Tensor, levels: int) -> torch.Tensor:
    low, high = part.amin(1, keepdim=True).clamp_(max=0), part.amax(1, keepdim=True).clamp_(min=0)
    scale = ((high - low) / levels).clamp_(min=torch.finfo(part.dtype).tiny)
    zero = (-low / scale).round_()
    codes = (part / scale).round_().add_(zero).clamp_(0, levels)
    return codes.sub_(zero).mul_(scale)
