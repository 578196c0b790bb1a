"""Softmax of logits with sums that lose no small terms: normaliser, probabilities, cross entropy, estimated KL."""

from __future__ import annotations

import torch
from torch.linalg import vecdot

# Number of entries summed together: few enough on a processor to stay in its cache, even in float64.
_TILE, _TILE_ELSEWHERE = 2**17, 2**24


def cross_entropy(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Compute the cross entropy of p with softmax(z) in nats, (N,) float64; both (N, V), at temperature 1.

    With the dense model's own logits it is the entropy of p; the excess of other logits over it is KL(p‖softmax(z)),
    precise enough for ranking: rounding is about 1e-6, with a third of the passes over the vocabulary that
    ``deviations`` needs. The probabilities p must sum to one as ``normalised`` makes them.
    """
    rows = _tile_rows(z)
    return torch.cat([_cross_entropy(*tile) for tile in zip(p.split(rows), z.split(rows), strict=True)])


def _cross_entropy(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Compute ``log Σ exp(z - max z) - p·(z - max z)``; ``sum`` adds pairwise, log_softmax loses many small terms."""
    below = z - z.amax(-1, keepdim=True)
    expected = vecdot(p, below).double()
    return below.exp_().sum(-1).double().log() - expected


def normalised(z: torch.Tensor) -> torch.Tensor:
    """Return ``softmax(z)`` of logits (N, V), divided by its sum, which is not one when most terms are small."""
    p = torch.softmax(z, -1)
    return p.div_(p.sum(-1, keepdim=True))


def log_normaliser(z: torch.Tensor) -> torch.Tensor:
    """Compute ``log Σ exp(z)`` of logits (N, V), (N,) float64, summed in float64 a tile at a time."""
    return torch.cat([torch.logsumexp(tile.double(), -1) for tile in z.split(_tile_rows(z))])


def kl_estimate(variance: torch.Tensor, temperature: float) -> torch.Tensor:
    """Estimate the KL divergence by theorem 3: ``KL ≈ Var_p(Δz) / (2T²)``."""
    return variance / (2 * temperature**2)


def _tile_rows(z: torch.Tensor) -> int:
    return max(1, (_TILE if z.device.type == "cpu" else _TILE_ELSEWHERE) // z.shape[-1])
