"""The second moments of a layer's inputs, and their inverse factor: pure functions."""

from __future__ import annotations

import torch

from pipeline.model.bfloat16 import exact_products
from pipeline.model.finite import check_values

# Their name in errors about values that are not finite.
MOMENTS = "second moments of calibration states"
# A product of this many rows and columns keeps its operands in the processor's cache.
_ROWS, _COLUMNS = 1024, 512
DAMPING, _TRIES = 0.01, 6


class Moments:
    """``H = (2/n) Σ x xᵀ`` over the tokens of n sequences, for inputs of width (in,): an (in, in) float32 matrix.

    Only the upper triangle of column strips is multiplied; the rest follows by symmetry.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self._sum = torch.zeros(width, width, device=device)

    def add(self, x: torch.Tensor) -> None:
        """Add the inputs (tokens, in) to the sum."""
        width = len(self._sum)
        with exact_products(x.device, lambda: x.dtype == torch.bfloat16):
            for rows in x.split(_ROWS):
                rows = rows.float()
                for start in range(0, width, _COLUMNS):
                    strip = slice(start, min(start + _COLUMNS, width))
                    self._sum[strip, start:].addmm_(rows[:, strip].T, rows[:, start:])

    @classmethod
    def identity(cls, width: int, device: torch.device) -> Moments:
        """Return the moments of inputs of which nothing is known: the sum is the identity matrix."""
        moments = cls(width, device)
        moments._sum.fill_diagonal_(1)
        return moments

    def hessian(self, sequences: int) -> torch.Tensor:
        upper = self._sum.triu()
        return (upper + upper.triu(1).T) * (2 / sequences)


def inverse_factor(hessian: torch.Tensor, damping: float = DAMPING) -> tuple[torch.Tensor, float]:
    """Compute the upper Cholesky factor U of the damped inverse, ``H⁻¹ = Uᵀ U``, and the damping that it took.

    ``damping`` is a share of the mean diagonal. If H is not positive definite with it, ten times as much is tried, and
    so on. Raises ValueError if that does not help, or if H is not finite.
    """
    check_values(hessian, MOMENTS)
    mean = hessian.diagonal().mean()
    for _ in range(_TRIES):
        damped = hessian + torch.eye(len(hessian), device=hessian.device) * (damping * mean)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            inverse = torch.cholesky_inverse(factor)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed:
                return upper, damping
        damping *= 10
    raise ValueError(f"the input moments of a layer stay singular even with damping {damping / 10:g}")
