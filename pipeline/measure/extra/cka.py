"""Linear centred kernel alignment of the dense and the pruned model's states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.measure.base import SetMeasure
from pipeline.measure.orthogonality import split
from pipeline.measure.similarity import angular_deviation


@dataclass(frozen=True)
class CKA(SetMeasure):
    """Linear centred kernel alignment, from 0 to 1 for the same geometry (Kornblith et al., 2019)."""

    columns: ClassVar[tuple[str, ...]] = ("cka",)

    def compute(self, dense: torch.Tensor, pruned: torch.Tensor) -> Mapping[str, float]:
        if len(dense) < 2:
            raise ValueError("cka compares at least 2 states; give more prompts or capture.steps of at least 2")
        return {"cka": 1 - float(cka_deviation(dense.double(), pruned.double() - dense.double()))}


def cka_deviation(x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Compute one minus the linear CKA of states x and x + Δ, both (N, D) float64; a scalar.

    CKA is the cosine of the centred Gram matrices ``K = x xᵀ`` and ``K + ΔK``. With ``ΔK = x Δᵀ + Δ xᵀ + Δ Δᵀ`` a small
    change keeps its digits.
    """
    x, delta = (each - each.mean(0) for each in (x, delta))
    if len(x) > 2 * x.shape[1]:
        # An orthogonal map of the positions changes no product of the matrices.
        x, delta = torch.linalg.qr(torch.cat([x, delta], 1), mode="r").R.split(x.shape[1], 1)
    cross = x @ delta.T
    change = cross + cross.T + delta @ delta.T
    return angular_deviation(*split((x @ x.T).flatten(), change.flatten()))
