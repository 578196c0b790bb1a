"""The split of a perturbation into the part along the dense vector and the part across it (section 2, theorem 1)."""

from __future__ import annotations

import torch


def split(x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed parallel coefficient ``a = x·Δx/‖x‖²`` and squared orthogonal ratio ``‖Δx - a x‖²/‖x‖²``.

    ``x`` and ``delta`` are (..., D) in one dtype, in which they are summed; both results are (...) float64. The
    squared parallel ratio ``‖Δx∥‖²/‖x‖²`` is ``a²``.
    """
    norm = x.square().sum(-1)
    along = (x * delta).sum(-1) / norm
    across = torch.addcmul(delta, along.unsqueeze(-1), x, value=-1).square_().sum(-1)
    return along.double(), (across / norm).double()


def angular_estimate(orthogonal: torch.Tensor) -> torch.Tensor:
    """Theorem 1: ``1 - cos(x, x + Δx) ≈ ‖Δx⊥‖² / (2‖x‖²)``."""
    return orthogonal / 2
