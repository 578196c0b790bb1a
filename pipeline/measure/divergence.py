"""Softmax-space deviation: KL divergence, the angular deviation of probabilities, and its estimate."""

from __future__ import annotations

import torch

from pipeline.measure.orthogonality import split, vecdot
from pipeline.measure.similarity import angular_deviation

# Below the first perturbation the exponential's series is summed; above the second, an entry's growth is computed from
# its logit rather than from its dense probability, which may have been raised to the floor.
_SMALL, _LARGE = 0.05, 30.0
# Makes more than one of the smallest difference of two numbers near the second perturbation.
_STEEP = 1e9
# Mean growth from which its logarithm has digits enough without subtracting one.
_FAR = 0.5
# Probabilities are scaled by this power of two and are at least exp(_FLOOR) of the largest: squares of smaller ones
# would be subnormal numbers, which processors multiply a hundred times slower. The floor adds far less than rounding.
SCALE, _FLOOR = 2.0**58, -70.0
# Share of a term from which a difference of two keeps its digits.
_CANCELLED = 0.02
# Perturbation from which the floor's contribution to a variance could be seen.
_HUGE = 1e5
# Angular deviation below which digits cancel where it is computed as one minus the cosine.
_CLOSE = 0.1
# Squared length of a row's growth, beyond which its sums may overflow. It means a divergence of more than three nats,
# which needs no care for digits.
_OVERFLOW = 2.0**125


def probabilities(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """Compute ``SCALE · softmax(z/T)`` of logits (N, V); negligible values are kept at a floor far below rounding."""
    scaled = torch.clamp(z, min=z.amax(-1, keepdim=True) + _FLOOR * temperature)
    if temperature != 1.0:
        scaled.mul_(1 / temperature)
    return torch.softmax(scaled, -1).mul_(SCALE)


def deviations(e: torch.Tensor, z: torch.Tensor, delta: torch.Tensor, temperature: float) -> dict[str, torch.Tensor]:
    """Compute every measure in probability space, of p = softmax(z/T) against q = softmax((z + Δz)/T).

    ``e`` are the dense ``probabilities``, ``z`` and ``delta`` dense logits and their perturbation, all (N, V).
    Returns (N,) float64:

    - ``kl``, ``kl_reverse``: KL(p‖q) and KL(q‖p) in nats; ``tv``: their total variation ``Σ|p - q| / 2``;
      ``deviation_p``: ``1 - cos(p, q)``
    - ``var_p``, ``var_r``: variance of Δz weighted by p and by ``r = p²/‖p‖²``, the weighted mean subtracted first
    """
    # Weights of a float softmax sum to one up to rounding only.
    mass, square = e.sum(-1).double(), vecdot(e, e)
    mean = vecdot(e, delta).double() / mass
    c = torch.sub(delta, mean.to(e.dtype).unsqueeze(-1))
    if temperature != 1.0:
        c.mul_(1 / temperature)
    ec = e * c
    var_p = vecdot(ec, c).double() / mass
    mean_r = vecdot(e, ec) / square
    around = torch.addcmul(ec, mean_r.unsqueeze(-1), e, value=-1)
    var_r = (vecdot(around, around) / square).double()
    growth, extent = _growth(e, c, z, temperature)
    residue = ec.sum(-1).double() / mass
    # A sum of squares may overflow though no square does, so the sum itself is checked.
    far = ~(vecdot(growth, growth) < _OVERFLOW)
    if any_far := bool(far.any()):
        growth[far] = 0  # of no use, and summed in float64 if it overflows
    # log E_p[exp(c)] - E_p[c] without cancellation of large terms: the excess E_p[exp(c) - 1 - c] is never negative.
    # KL(q‖p) is E_q[c] less the same logarithm; the residue of E_p[c], zero but for rounding, cancels in both.
    normaliser = (_excess(growth, ec, c, extent < _SMALL).double() / mass + residue).log1p()
    kl, gain = normaliser - residue, vecdot(growth, c).double() / mass
    expected = (gain + residue) * (-normaliser).exp()
    # The cosine does not depend on scale, so q is replaced by p·exp(c) = p + p·(exp(c) - 1).
    deviation, tv = angular_deviation(*split(e, growth, square)), _total_variation(e, growth, mass)
    if any_far:
        kl[far], expected[far], deviation[far], tv[far] = _far_apart(e[far], c[far], z[far], residue[far], temperature)
    scale = temperature**2
    reverse = expected - (kl + residue)
    found = {"kl": kl.clamp(min=0), "kl_reverse": reverse.clamp(min=0), "tv": tv}
    found |= {"deviation_p": deviation, "var_p": var_p * scale, "var_r": var_r * scale}
    safe = (extent < _HUGE) & var_r.isfinite() & ~(far & (deviation < _CLOSE))
    if not safe.all():
        for name, value in _by_definition(z[~safe], delta[~safe], temperature).items():
            found[name][~safe] = value
    # Where pruning takes away tokens that hardly had any probability, both terms are much larger than the difference.
    if (rough := safe & (reverse < _CANCELLED * torch.maximum(gain, expected))).any():
        found["kl_reverse"][rough] = _by_definition(z[rough], delta[rough], temperature)["kl_reverse"]
    return found


def _far_apart(
    e: torch.Tensor, c: torch.Tensor, z: torch.Tensor, residue: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute KL(p‖q), ``E_q[c]``, ``1 - cos(p, q)`` and ``Σ|p - q| / 2``, (N,) float64, if the KL exceeds three nats.

    ``c`` (N, V) is the change of z/T, of which ``residue`` (N,) is the mean weighted by p.
    """
    log_q = _log_q(e, c, z, temperature)
    largest = log_q.amax(-1, keepdim=True)
    q = log_q.sub_(largest).clamp_(min=_FLOOR).exp_()
    mass = q.sum(-1, keepdim=True)
    kl = largest.squeeze(-1).double() + mass.squeeze(-1).double().log() - residue
    lengths = vecdot(e, e).double().sqrt() * vecdot(q, q).double().sqrt()
    deviation, expected = 1 - vecdot(e, q).double() / lengths, vecdot(q, c).double() / mass.squeeze(-1).double()
    tv = q.div_(mass).sub_(e / e.sum(-1, keepdim=True)).abs_().sum(-1).double() / 2
    return kl, expected, deviation, tv


def log_ratio(p: torch.Tensor, z: torch.Tensor, delta: torch.Tensor, temperature: float) -> torch.Tensor:
    """Compute ``log q - log p`` (N, V) of p = softmax(z/T) and q = softmax((z + Δz)/T), from Δz alone.

    It is ``c - log E_p[exp(c)]``, c = Δz/T less its value at the likeliest token: exactly zero without a change, and
    small ones keep their digits, also where nearly all probability is at one token.
    """
    first = p.argmax(-1, keepdim=True)
    c = (delta - delta.gather(-1, first)) / temperature
    growth = vecdot(p, torch.expm1(c.clamp(max=_LARGE)))
    normaliser = growth.log1p()
    far = (growth.abs() > _FAR) | (c.amax(-1) > _LARGE)
    if far.any():
        normaliser[far] = torch.logsumexp(torch.log_softmax(z[far] / temperature, -1) + c[far], -1)
    return c - normaliser.unsqueeze(-1)


def _by_definition(z: torch.Tensor, delta: torch.Tensor, temperature: float) -> dict[str, torch.Tensor]:
    """Compute the same measures in float64, for perturbations so large that their squares overflow otherwise."""
    z, delta = z.double() / temperature, delta.double() / temperature
    log_p, log_q = torch.log_softmax(z, -1), torch.log_softmax(z + delta, -1)
    p, q = log_p.exp(), log_q.exp()
    r = p.square()
    r /= r.sum(-1, keepdim=True)
    variances = (
        vecdot(weights, (delta - vecdot(weights, delta).unsqueeze(-1)).square()) * temperature**2 for weights in (p, r)
    )
    return {
        "kl": vecdot(p, log_p - log_q).clamp(min=0),
        "kl_reverse": vecdot(q, log_q - log_p).clamp(min=0),
        "tv": (q - p).abs().sum(-1) / 2,
        "deviation_p": angular_deviation(*split(p, q - p)),
    } | dict(zip(("var_p", "var_r"), variances, strict=True))


def _total_variation(e: torch.Tensor, growth: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """Compute ``Σ|q - p| / 2`` (N,) of p = e / M and q = (e + growth) / (M + G), sums M = ``mass`` and G.

    ``q - p = (growth - e·G/M) / (M + G)`` has no difference of large terms where growth is small.
    """
    gained = growth.sum(-1).double()
    mean = (gained / mass).to(e.dtype).unsqueeze(-1)
    return torch.addcmul(growth, e, mean, value=-1).abs_().sum(-1).double() / (2 * (mass + gained))


def _growth(e: torch.Tensor, c: torch.Tensor, z: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute ``e·(exp(c) - 1)`` (N, V), and the largest magnitude of c (N,)."""
    low, high = c.amin(-1), c.amax(-1)
    extent = torch.maximum(high, -low)
    if (high <= _LARGE).all():
        return torch.expm1(c).mul_(e), extent
    near = torch.expm1(c.clamp(max=_LARGE)).mul_(e)
    # Clamped where it would only say that the divergence is large, but never below the near one of a large change.
    far = _log_q(e, c, z, temperature).clamp_(min=_FLOOR, max=_LARGE + 1).exp_().mul_(SCALE)
    # One where c is larger, else zero: a choice by arithmetic takes a quarter of the time of `torch.where`.
    choice = torch.sub(c, _LARGE).mul_(_STEEP).clamp_(0, 1)
    return near.addcmul_(choice, far.sub_(near)), extent


def _log_q(e: torch.Tensor, c: torch.Tensor, z: torch.Tensor, temperature: float) -> torch.Tensor:
    """Compute ``log p + c`` (N, V) from logits, as probabilities may have been raised to the floor."""
    return torch.add(c, z, alpha=1 / temperature).sub_(_normaliser(e, z, temperature).unsqueeze(-1))


def _excess(growth: torch.Tensor, ec: torch.Tensor, c: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
    """Compute ``Σ e·(exp(c) - 1 - c)`` (N,), by a series in rows where the difference would leave rounding noise."""
    if small.all():
        return _series(ec, c)
    excess = (growth - ec).sum(-1)
    excess[small] = _series(ec[small], c[small])
    return excess


def _series(ec: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Compute ``Σ e·(exp(c) - 1 - c)`` (N,) of small c (N, V) by the series, with ``ec = e·c``."""
    series = 1 / 2 + c * (1 / 6 + c * (1 / 24 + c * (1 / 120 + c / 720)))
    return vecdot(ec, series.mul_(c))


def _normaliser(e: torch.Tensor, z: torch.Tensor, temperature: float) -> torch.Tensor:
    """Compute ``log Σ exp(z/T)`` (N,) of logits (N, V) whose ``probabilities`` are known."""
    return z.amax(-1) / temperature - (e.amax(-1) / SCALE).log()


def angular_estimate(variance: torch.Tensor, temperature: float) -> torch.Tensor:
    """Estimate the angular deviation by theorem 2: ``1 - cos(p, q) ≈ Var_r(Δz) / (2T²)`` with ``r_i = p_i²/‖p‖²``."""
    return variance / (2 * temperature**2)
