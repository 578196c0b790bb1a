"""Group-wise round-to-nearest quantization of weights: pure functions."""

from __future__ import annotations

import torch


def round_to_nearest(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """The nearest values that ``bits`` per weight can say, with a scale and a zero point per ``group`` input columns.

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
