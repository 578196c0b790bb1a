"""Angular deviation: one minus the cosine similarity."""

from __future__ import annotations

import torch


def angular_deviation(parallel: torch.Tensor, orthogonal: torch.Tensor) -> torch.Tensor:
    """``1 - cos(x, x + Δx)`` from the signed parallel part ``x·Δx/‖x‖²`` and ``‖Δx⊥‖²/‖x‖²``, both (...) float64.

    Algebraically the same as one minus the cosine, but exact for tiny perturbations, where the subtraction would
    leave rounding noise only: with a = 1 + parallel, ``1 - a/√(a² + o) = o / (r(r + a))``, r = √(a² + o).
    """
    along = 1 + parallel
    radius = (along.square() + orthogonal).sqrt()
    return torch.where(along > 0, orthogonal / (radius * (radius + along)), 1 - along / radius)
