"""The measures as their definitions say, in plain float64, and how closely float32 results have to agree with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from pipeline.measure.measures import COLUMNS
from pipeline.model.head import Head

# What only pruning can make differ from "no deviation"; the others are the dense model's own.
CONFIDENCE = ("top1", "entropy", "margin")
DEVIATIONS = tuple(name for name in COLUMNS if name not in CONFIDENCE)
# Half a unit in the last place of float32, and of numbers near one in float64.
EPSILON, DOUBLE = 2.0**-24, 2.0**-53
# Probabilities below exp(-70) of the largest are kept there; so much of the squared perturbation that may add.
FLOOR = 1e-26

Norm = Callable[[torch.Tensor], torch.Tensor]


def perturbed_logits(
    h: torch.Tensor, h2: torch.Tensor, head: Head, norm: Norm | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense logits (N, V) and their change, in float64."""
    h, h2 = h.double(), h2.double()
    if norm is not None:
        h, h2 = norm(h), norm(h2)
    weight = head.weight.double()
    z, delta = h @ weight.T, (h2 - h) @ weight.T
    if head.bias is not None:
        z = z + head.bias.double()
    if head.cap is None:
        return z, delta
    before, after = (head.cap * torch.tanh(x / head.cap) for x in (z, z + delta))
    return before, after - before


def naive(
    h: torch.Tensor, h2: torch.Tensor, head: Head, temperature: float, norm: Norm | None = None
) -> dict[str, np.ndarray]:
    """Every column for each position. Cosines are given as deviations, ``1 - cos``: that is what has to be right."""
    z, delta = perturbed_logits(h, h2, head, norm)
    h, h2 = h.double(), h2.double()
    p, q = torch.softmax(z / temperature, -1), torch.softmax((z + delta) / temperature, -1)
    r = p.square() / p.square().sum(-1, keepdim=True)
    top = z.topk(2).values
    log_p, log_q = torch.log_softmax(z / temperature, -1), torch.log_softmax((z + delta) / temperature, -1)
    found = {
        "cos_h": deviation(h, h2),
        "cos_z": deviation(z, z + delta),
        "cos_p": deviation(p, q),
        "kl": (p * (log_p - log_q)).sum(-1),
        "kl_reverse": (q * (log_q - log_p)).sum(-1),
        "tv": total_variation(p, q, delta / temperature),
        "var_p": variance(p, delta),
        "var_r": variance(r, delta),
        "var_uniform": delta.var(-1, unbiased=False),
        "rms_dz": delta.square().mean(-1).sqrt(),
        "top1": p.amax(-1),
        "entropy": -(p * log_p).sum(-1),
        "margin": (top[:, 0] - top[:, 1]) / temperature,
        "flip": (z.argmax(-1) != (z + delta).argmax(-1)).double(),
    }
    for space, x, dx in (("h", h, h2 - h), ("z", z, delta)):
        found[f"par_{space}"], found[f"orth_{space}"] = split(x, dx)
        found[f"est_cos_{space}"] = found[f"orth_{space}"] / 2
    found["est_cos_p"] = found["var_r"] / (2 * temperature**2)
    found["est_kl"] = found["var_p"] / (2 * temperature**2)
    return {name: found[name].numpy() for name in COLUMNS}


def total_variation(p: torch.Tensor, q: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """``Σ|q - p| / 2``; of small changes from ``q/p = exp(δ) / E_p[exp(δ)]``, which keeps their digits."""
    growth = torch.expm1(delta.clamp(max=1.0))
    mean = (p * growth).sum(-1, keepdim=True)
    near = (p * (growth - mean) / (1 + mean)).abs().sum(-1) / 2
    return torch.where(delta.abs().amax(-1) < 1, near, (q - p).abs().sum(-1) / 2)


def deviation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``1 - cos(x, y)`` as half the squared distance of the directions, which keeps its digits near zero."""
    x, y = x / x.norm(dim=-1, keepdim=True), y / y.norm(dim=-1, keepdim=True)
    return (x - y).square().sum(-1) / 2


def split(x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared relative magnitudes along x and across it."""
    norm = x.square().sum(-1)
    along = ((x * delta).sum(-1) / norm).unsqueeze(-1) * x
    return along.square().sum(-1) / norm, (delta - along).square().sum(-1) / norm


def variance(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Weighted variance, the weighted mean subtracted first."""
    mean = (weights * x).sum(-1, keepdim=True)
    return (weights * (x - mean).square()).sum(-1)


def assert_agrees(
    found: Mapping[str, Any], expected: Mapping[str, np.ndarray], largest: float, rtol: float = 1e-5, where: str = ""
) -> None:
    """Columns of one temperature against ``naive``, by relative error however small the values are.

    ``largest`` is the largest logit over the temperature. A float32 logit of that size is off by a few of its last
    places, which is a relative error of the probabilities: it is allowed for beside ``rtol``.
    """
    rounding = EPSILON * largest
    for name, exact in expected.items():
        value = np.asarray(found[name], dtype=float)
        absolute, relative = 1e-15 * (1 + largest), rtol + 16 * rounding
        if "cos" in name:
            value, absolute = 1 - value, 4 * DOUBLE  # near one that is all that a double has
        elif name.startswith("par"):
            # Its root is a sum in which what lies across cancels.
            value, exact = np.sqrt(value), np.sqrt(exact)
            absolute = 8 * EPSILON * np.sqrt(np.asarray(expected[name.replace("par", "orth")]))
        elif name in ("entropy", "margin"):
            absolute = 16 * rounding + 16 * EPSILON  # differences of logits
        elif name == "tv":
            absolute = 1e-12  # a change of probabilities, of which the largest is about one
        elif not name.startswith("kl"):
            absolute = FLOOR * np.asarray(expected["rms_dz"]) ** 2
        wrong = np.abs(value - exact) > absolute + relative * np.abs(exact)
        assert not wrong.any(), f"{where} {name}: {value[wrong]} should be {exact[wrong]}"


def largest_logit(h: torch.Tensor, head: Head, temperature: float, norm: Norm | None = None) -> float:
    return float(perturbed_logits(h, h, head, norm)[0].abs().max()) / temperature
