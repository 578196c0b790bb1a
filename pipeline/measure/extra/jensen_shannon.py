"""Jensen-Shannon divergence of the dense and the pruned model's probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from pipeline.measure.base import Measure, Tile


@dataclass(frozen=True)
class JensenShannon(Measure):
    """Jensen-Shannon divergence ``KL(p‖m)/2 + KL(q‖m)/2``, ``m = (p + q)/2``, in nats or bits (Lin, 1991)."""

    unit: Literal["nats", "bits"]
    columns: ClassVar[tuple[str, ...]] = ("jensen_shannon",)

    def compute(self, tile: Tile) -> Mapping[str, torch.Tensor]:
        nats = jensen_shannon(tile.p, tile.q, tile.log_ratio)
        return {"jensen_shannon": nats / math.log(2) if self.unit == "bits" else nats}


def jensen_shannon(p: torch.Tensor, q: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    """Compute the Jensen-Shannon divergence in nats, (N,) float64, of (N, V) probabilities and their ``log q/p``.

    With ``s = log(q/p)/2`` it equals ``Σ (p + q) g(s) / 2``, ``g(s) = s tanh s - log cosh s``. No term is negative, and
    each keeps its digits: g is about s²/2 near zero and log 2 far from it.
    """
    s = log_ratio.abs() / 2
    tanh = torch.tanh(s)
    # log cosh s = s - log 2 + log(1 + exp(-2s)), which leaves only rounding noise where s is small.
    far = s * (tanh - 1) + math.log(2) - torch.exp(-2 * s).log1p()
    g = torch.where(s < 1, s * tanh + torch.log1p(-tanh.square()) / 2, far)
    return torch.linalg.vecdot(p + q, g).double() / 2
