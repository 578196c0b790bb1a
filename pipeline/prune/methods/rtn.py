"""Round-to-nearest: the weight-only quantization that needs no text. No pruning, but compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.config.component import Bits, Positive
from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder
from pipeline.model.offload import resident
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import Change, Decision
from pipeline.prune.methods.masks import new_weights
from pipeline.prune.methods.quantize import round_to_nearest


@dataclass(frozen=True)
class RoundToNearest(Pruner):
    """Every weight matrix in ``bits`` bits, with a scale and a zero point per ``group`` columns of each row.

    Takes no sparsity: nothing is removed. The weights are put back as the values that the codes stand for.
    """

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
