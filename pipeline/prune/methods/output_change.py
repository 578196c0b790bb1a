"""Output change: remove the units whose removal turns the output for the given text least, one after the other.

FinerCut (Zhang et al., 2024, arXiv 2405.18218) treats attention and MLP sublayers as candidates of their own and keeps
those whose removal changes the model's output most, by a distance of the outputs with and without them. It is asked
again after each removal. Here the output is what predicts each next token of the calibration text: its logits, or its
probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.proof import head_of
from pipeline.model.softmax import normalised
from pipeline.model.trajectory import Trajectory
from pipeline.prune.methods.unit_costs import Cost
from pipeline.prune.methods.unit_search import UnitSearch

# Positions whose logits are in memory at a time.
_ROWS = 256
# A distance at each position, (N,) float64, of the logits (N, V) of two models.
Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class OutputChange(UnitSearch):
    """Drops units one after the other, each time the one with which the output is nearest to the dense model's.

    ``distance`` is the ``angular`` distance of the logits, or the ``jensen_shannon`` divergence of the probabilities,
    as a mean over positions that all count alike.
    """

    distance: Literal["angular", "jensen_shannon"] = "angular"

    version: ClassVar[int] = 2

    def cost(self, decoder: Decoder, trajectory: Trajectory) -> Cost:
        head, distance = head_of(decoder, torch.float32), DISTANCES[self.distance]

        def added(start: int, states: torch.Tensor) -> list[float]:
            dense = trajectory.final[start : start + states.shape[1]]
            return [total / len(trajectory.final) for total in _sums_of_distances(head, dense, states, distance)]

        return Cost(added)


def _sums_of_distances(head: Head, dense: torch.Tensor, others: torch.Tensor, distance: Distance) -> list[float]:
    """Compute the sum of the distances of what a model predicts from states (n, D), and k others from (k, n, D)."""
    totals = torch.zeros(len(others), dtype=torch.float64)
    for one, several in zip(dense.split(_ROWS), others.split(_ROWS, dim=1), strict=True):
        z = head.logits(one.to(head.weight.device))
        for at, other in enumerate(several):
            totals[at] += distance(z, head.logits(other.to(z.device))).sum().cpu()
    return totals.tolist()


def angular_distance(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Compute the angle between rows of (N, V), as a fraction of a half turn: ``arccos(cos) / π``, (N,) float64.

    Half the angle has the tangent ``‖a - b‖ / ‖a + b‖`` for unit vectors: unlike the arccosine, exact for small angles.
    """
    one, two = (torch.nn.functional.normalize(z.double(), dim=-1) for z in (one, two))
    return torch.atan2((one - two).norm(dim=-1), (one + two).norm(dim=-1)) * 2 / torch.pi


def jensen_shannon(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Compute the Jensen-Shannon divergence (Lin, 1991) of the softmax of logits (N, V), in nats, (N,) float64."""
    p, q = normalised(one.double()), normalised(two.double())
    entropy, entropy_of_mean = (torch.special.entr(x).sum(-1) for x in (torch.stack([p, q]), (p + q) / 2))
    # Equal rows may come out below zero, by rounding.
    return (entropy_of_mean - entropy.mean(0)).clamp_(min=0)


DISTANCES: dict[str, Distance] = {"angular": angular_distance, "jensen_shannon": jensen_shannon}
