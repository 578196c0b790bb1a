"""Split of a perturbation into the part along the dense vector and the part across it (section 2, theorem 1)."""

from __future__ import annotations

import torch

vecdot = torch.linalg.vecdot
# Squared lengths that float32 sums well: far from its largest number and from sums of subnormal squares.
_LARGEST, _SMALLEST = 2.0**125, 2.0**-80


def split(x: torch.Tensor, delta: torch.Tensor, norm: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the signed parallel coefficient ``a = x·Δx/‖x‖²`` and squared orthogonal ratio ``‖Δx - a x‖²/‖x‖²``.

    ``x`` and ``delta`` are (..., D) in one dtype, in which they are summed; both results are (...) float64. The
    squared parallel ratio ``‖Δx∥‖²/‖x‖²`` is ``a²``. ``norm`` is ``‖x‖²`` if it is known already.
    """
    norm = vecdot(x, x) if norm is None else norm
    along = vecdot(x, delta) / norm
    across = torch.addcmul(delta, along.unsqueeze(-1), x, value=-1)
    square = vecdot(across, across)
    found = along.double(), square.double() / norm.double()
    # In float64 the squares of float32 numbers neither overflow nor vanish.
    safe = found[0].isfinite() & _within(norm) & _within(square)
    if x.dtype != torch.float64 and not safe.all():
        for value, exact in zip(found, split(x[~safe].double(), delta[~safe].double()), strict=True):
            value[~safe] = exact
    return found


def mean_square(x: torch.Tensor) -> torch.Tensor:
    """Compute ``‖x‖²/D`` of (N, D) vectors, (N,) float64, also if squares overflow or vanish in the vectors' dtype."""
    square = vecdot(x, x).double()
    safe = _within(square)
    if x.dtype != torch.float64 and not safe.all():
        exact = x[~safe].double()
        square[~safe] = vecdot(exact, exact)
    return square / x.shape[-1]


def _within(square: torch.Tensor) -> torch.Tensor:
    """Return whether a squared length is neither so large nor so small that float32 may lose some of its terms."""
    return (square < _LARGEST) & (square > _SMALLEST)


def angular_estimate(orthogonal: torch.Tensor) -> torch.Tensor:
    """Estimate the angular deviation by theorem 1: ``1 - cos(x, x + Δx) ≈ ‖Δx⊥‖² / (2‖x‖²)``."""
    return orthogonal / 2
