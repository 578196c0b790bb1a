"""The split of a perturbation into the part along the dense vector and the part across it (section 2, theorem 1)."""

from __future__ import annotations

import torch

vecdot = torch.linalg.vecdot


def split(x: torch.Tensor, delta: torch.Tensor, norm: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed parallel coefficient ``a = x·Δx/‖x‖²`` and squared orthogonal ratio ``‖Δx - a x‖²/‖x‖²``.

    ``x`` and ``delta`` are (..., D) in one dtype, in which they are summed; both results are (...) float64. The
    squared parallel ratio ``‖Δx∥‖²/‖x‖²`` is ``a²``. ``norm`` is ``‖x‖²`` where that is known already.
    """
    norm = vecdot(x, x) if norm is None else norm
    along = vecdot(x, delta) / norm
    across = torch.addcmul(delta, along.unsqueeze(-1), x, value=-1)
    return along.double(), (vecdot(across, across) / norm).double()


def angular_estimate(orthogonal: torch.Tensor) -> torch.Tensor:
    """Theorem 1: ``1 - cos(x, x + Δx) ≈ ‖Δx⊥‖² / (2‖x‖²)``."""
    return orthogonal / 2
