"""Softmax-space deviation: KL divergence, angular deviation of probabilities, and their estimates."""

from __future__ import annotations

import torch

from pipeline.measures.orthogonality import split
from pipeline.measures.similarity import angular_deviation

# Below this perturbation the exponential's series is summed, above the other one probabilities are renormalised.
_SMALL, _LARGE = 0.05, 30.0


def probabilities(z: torch.Tensor, delta: torch.Tensor, temperature: float) -> dict[str, torch.Tensor]:
    """Every measure in probability space, with p = softmax(z/T) and q = softmax((z + Δz)/T).

    ``z`` and ``delta`` are (N, V) dense logits and their perturbation. Returns (N,) float64 tensors:

    - ``kl``: KL(p‖q) in nats; ``deviation_p``: ``1 - cos(p, q)``
    - ``var_p``, ``var_r``: variance of Δz weighted by p and by ``r = p²/‖p‖²``, the weighted mean subtracted first
    """
    p = torch.softmax(z / temperature if temperature != 1.0 else z, -1)
    # Weights of a float softmax sum to one up to rounding only.
    mass = p.sum(-1, keepdim=True)
    centred = delta - (p * delta).sum(-1, keepdim=True) / mass
    weighted = p * centred
    var_p = (weighted * centred).sum(-1) / mass.squeeze(-1)
    square = p.square().sum(-1)
    mean_r = (p * weighted).sum(-1) / square
    var_r = torch.addcmul(weighted, -mean_r.unsqueeze(-1), p).square_().sum(-1) / square
    if temperature != 1.0:
        centred, weighted = centred / temperature, weighted / temperature
    kl, deviation = _softmax_deviation(z / temperature, p, centred, weighted)
    return {"kl": kl, "deviation_p": deviation, "var_p": var_p.double(), "var_r": var_r.double()}


def _softmax_deviation(
    scaled: torch.Tensor, p: torch.Tensor, c: torch.Tensor, pc: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """KL and angular deviation of q ∝ p·exp(c) from p, where c has weighted mean zero and ``pc = p·c``.

    ``KL = log E_p[exp(c)] - E_p[c]``, taken as the never negative ``E_p[exp(c) - 1 - c]``, so that nothing large
    cancels for a small divergence. The cosine is scale-free, hence that of p with p·exp(c) = p + p·(exp(c) - 1).
    """
    largest = c.abs().amax()
    if largest > _LARGE:
        return _distant(scaled, c)
    growth = p * torch.expm1(c)
    mass = p.sum(-1, dtype=torch.float64)
    residue = pc.sum(-1) / mass
    if largest < _SMALL:
        series = 1 / 2 + c * (1 / 6 + c * (1 / 24 + c * (1 / 120 + c / 720)))
        excess = (pc * c).mul_(series).sum(-1)
    else:
        excess = (growth - pc).sum(-1)
    kl = (excess / mass + residue).log1p() - residue
    return kl, angular_deviation(*split(p, growth))


def _distant(scaled: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for perturbations so large that exp(c) may overflow: from two log-softmaxes."""
    log_p, log_q = torch.log_softmax(scaled, -1), torch.log_softmax(scaled + c, -1)
    p, q = log_p.exp(), log_q.exp()
    kl = (p * (log_p - log_q)).sum(-1, dtype=torch.float64)
    return kl.clamp(min=0), angular_deviation(*split(p, q - p))


def kl_estimate(variance: torch.Tensor, temperature: float) -> torch.Tensor:
    """Theorem 3: ``KL ≈ Var_p(Δz) / (2T²)``."""
    return variance / (2 * temperature**2)


def angular_estimate(variance: torch.Tensor, temperature: float) -> torch.Tensor:
    """Theorem 2: ``1 - cos(p, q) ≈ Var_r(Δz) / (2T²)`` with ``r_i = p_i²/‖p‖²``."""
    return variance / (2 * temperature**2)
