"""Activation-aware quantization: scale up the input channels that matter before rounding (arXiv 2306.00978)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Bits, Positive
from pipeline.model.decoder import Linear
from pipeline.model.finite import check_values
from pipeline.prune.decision import Change
from pipeline.prune.methods.blockwise import BlockwisePruner, CalibratedBlock
from pipeline.prune.methods.hessian import MOMENTS
from pipeline.prune.methods.rtn import round_to_nearest
from pipeline.prune.methods.sparsegpt import gather, reconstruction_error


@dataclass(frozen=True)
class ActivationAwareQuantizer(BlockwisePruner):
    """Rounds ``W·diag(s)`` to nearest and divides by s again, with ``s_j = (rms of x_j)^α``.

    Of ``steps`` + 1 exponents α in [0, 1], each group of matrices with one input takes the one that changes its outputs
    on the calibration text least; α = 0 is plain rounding. The error is computed from the inputs' second moments, so
    no input has to be kept. Takes no sparsity: nothing is removed.
    """

    accepts: ClassVar[tuple[str, ...]] = ()
    bits: Bits = 4
    group: Positive = 128
    steps: Positive = 20

    def change(self, block: CalibratedBlock, sparsity: Sparsity) -> Change:
        change = Change()
        by_name = {linear.name: linear for linear in block.linears}
        for moments in gather(block):
            for names, gathered in moments.items():
                linears = [by_name[name] for name in names]
                hessian = gathered.hessian(block.sequences)
                check_values(hessian, MOMENTS)
                scale, alpha = self._search(linears, hessian)
                for linear in linears:
                    whole = getattr(linear.module, linear.attribute).data
                    value = change.weights.setdefault(linear.parameter, whole.cpu().clone())
                    weight = self._quantize(linear.weight.float(), scale)
                    linear.view(value).copy_(weight)
                    error = reconstruction_error(linear.weight.float() - weight, hessian)
                    note = {"layer": block.layer, "sublayer": linear.name, "score": error, "alpha": alpha}
                    change.notes.append(note)
        return change

    def _search(self, linears: Sequence[Linear], hessian: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Find the channel scales that change the outputs of all these matrices together least, and their exponent."""
        found = []
        for step in range(self.steps + 1):
            scale = _scale(hessian, step / self.steps)
            deltas = (linear.weight.float() - self._quantize(linear.weight.float(), scale) for linear in linears)
            found.append((sum(reconstruction_error(delta, hessian) for delta in deltas), step / self.steps))
        alpha = min(found)[1]
        return _scale(hessian, alpha), alpha

    def _quantize(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return round_to_nearest(weight * scale, self.bits, self.group) / scale


def _scale(hessian: torch.Tensor, alpha: float) -> torch.Tensor:
    """Compute channel scales (in,), with extremes around one; an unused channel gets the smallest of the others."""
    rms = hessian.diagonal().sqrt()
    used = rms > 0
    rms = torch.where(used, rms, rms[used].min() if used.any() else 1.0)
    scale = rms.pow(alpha)
    return scale / (scale.max() * scale.min()).sqrt()
