"""The softmax of logits, in sums that lose no small terms: normaliser, probabilities, cross entropy, estimated KL."""

from __future__ import annotations

import torch
from torch.linalg import vecdot

# Entries that are summed together: on a processor so few that they stay in its cache, even in float64.
_TILE, _TILE_ELSEWHERE = 2**17, 2**24


def cross_entropy(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Cross entropy of probabilities p with softmax(z), in nats, (N,) float64; both (N, V), at temperature 1.

    With the dense model's own logits it is the entropy of p, and what others have beyond it is KL(p‖softmax(z)): for
    ranking, with a third of the passes over the vocabulary that ``deviations`` needs, and rounding of about 1e-6.
    p has to sum to one as ``normalised`` has it.
    """
    rows = _tile_rows(z)
    return torch.cat([_cross_entropy(*tile) for tile in zip(p.split(rows), z.split(rows), strict=True)])


def _cross_entropy(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """``log Σ exp(z - max z) - p·(z - max z)``: ``sum`` adds pairwise, whereas log_softmax loses many small terms."""
    below = z - z.amax(-1, keepdim=True)
    expected = vecdot(p, below).double()
    return below.exp_().sum(-1).double().log() - expected


def normalised(z: torch.Tensor) -> torch.Tensor:
    """``softmax(z)`` of logits (N, V), in sum one to rounding, which a softmax is not when most terms are small."""
    p = torch.softmax(z, -1)
    return p.div_(p.sum(-1, keepdim=True))


def log_normaliser(z: torch.Tensor) -> torch.Tensor:
    """``log Σ exp(z)`` of logits (N, V), (N,) float64 and summed in float64, a tile at a time."""
    return torch.cat([torch.logsumexp(tile.double(), -1) for tile in z.split(_tile_rows(z))])


def kl_estimate(variance: torch.Tensor, temperature: float) -> torch.Tensor:
    """Theorem 3: ``KL ≈ Var_p(Δz) / (2T²)``."""
    return variance / (2 * temperature**2)


def _tile_rows(z: torch.Tensor) -> int:
    return max(1, (_TILE if z.device.type == "cpu" else _TILE_ELSEWHERE) // z.shape[-1])
