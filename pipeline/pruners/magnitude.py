"""Magnitude pruning: the smallest weights of each linear layer go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.decoder import Decoder
from pipeline.pruners.base import Calibration, Pruner
from pipeline.pruners.decision import Decision
from pipeline.pruners.masks import per_matrix
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class Magnitude(Pruner):
    """Threshold on |W| over each linear layer inside the decoder blocks.

    ``inclusive`` also prunes the entry at the threshold, one more than asked for, as public reference code does.
    """

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "pattern")
    unit: ClassVar[str] = "weight"
    calibrated: ClassVar[bool] = False
    inclusive: bool = False

    @torch.no_grad()
    def decide(
        self,
        decoder: Decoder,
        sparsity: Sparsity,
        scores: list[dict[str, Any]],
        calibration: Calibration | None,
    ) -> Decision:
        masks = {
            f"{name}.weight": per_matrix(linear.weight.abs().float(), sparsity, self.inclusive).cpu()
            for layer in range(len(decoder.blocks))
            for name, linear in decoder.linears(layer).items()
        }
        return Decision(masks=masks)
