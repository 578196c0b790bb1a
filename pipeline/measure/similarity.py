"""Angular deviation: one minus the cosine similarity."""

from __future__ import annotations

import torch


def angular_deviation(parallel: torch.Tensor, orthogonal: torch.Tensor) -> torch.Tensor:
    """Compute ``1 - cos(x, x + Δx)`` from the signed ``x·Δx/‖x‖²`` (parallel) and ``‖Δx⊥‖²/‖x‖²``, (...) float64.

    Algebraically equal to one minus the cosine, but exact for tiny perturbations, where the subtraction would leave
    only rounding noise: with a = 1 + parallel, ``1 - a/√(a² + o) = o / (r(r + a))``, r = √(a² + o).
    """
    along = 1 + parallel
    radius = (along.square() + orthogonal).sqrt()
    return torch.where(along > 0, orthogonal / (radius * (radius + along)), 1 - along / radius)
