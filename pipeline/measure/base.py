"""Contracts of further measures: of pairs of positions, and of sets of states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from pipeline.config.component import Component
from pipeline.measure import divergence

# Magnitude of log q/p below which a change of probability is computed from it, not as a difference.
_NEAR = 1.0


@dataclass(frozen=True)
class Tile:
    """Dense and pruned model side by side at n positions, at one temperature.

    ``h`` and ``delta_h`` (n, D) are dense states and their change by pruning, ``z`` and ``delta_z`` (n, V) dense logits
    and their change, after any cap of the model's head. All have one dtype, float32 or float64. Others read the same
    tensors: do not change them in place.
    """

    h: torch.Tensor
    delta_h: torch.Tensor
    z: torch.Tensor
    delta_z: torch.Tensor
    temperature: float

    @cached_property
    def p(self) -> torch.Tensor:
        """Dense probabilities ``softmax(z/T)`` (n, V)."""
        scaled = divergence.probabilities(self.z, self.temperature)
        return scaled / scaled.sum(-1, keepdim=True)

    @cached_property
    def q(self) -> torch.Tensor:
        """Pruned probabilities ``softmax((z + Δz)/T)`` (n, V)."""
        return torch.softmax((self.z + self.delta_z) / self.temperature, -1)

    @cached_property
    def log_ratio(self) -> torch.Tensor:
        """``log q/p`` (n, V), from the change of the logits: small ones keep their digits."""
        return divergence.log_ratio(self.p, self.z, self.delta_z, self.temperature)

    @cached_property
    def delta_p(self) -> torch.Tensor:
        """Change of the probabilities ``q - p`` (n, V): small ones keep their digits."""
        near = self.log_ratio.clamp(-_NEAR, _NEAR)
        return torch.where(near == self.log_ratio, torch.expm1(near).mul_(self.p), self.q - self.p)


@dataclass(frozen=True)
class FurtherMeasure(Component):
    """Base of the choices of ``conf/measures``.

    ``columns`` names what it computes, a literal tuple: it is read before any model library is imported.
    """

    columns: ClassVar[tuple[str, ...]] = ()

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"columns": list(self.columns)}


@dataclass(frozen=True)
class Measure(FurtherMeasure):
    """Measure of a pair of positions, dense and pruned: a number per column, position and temperature.

    It becomes columns of the table of measures.
    """

    def compute(self, tile: Tile) -> Mapping[str, torch.Tensor]:
        """Compute the measure at n positions: a tensor (n,) by column. All have to be finite."""
        raise TypeError(f"measure {type(self).__name__} does not define compute()")


@dataclass(frozen=True)
class SetMeasure(FurtherMeasure):
    """Measure of two sets of states: a number per column, protocol, layer and sublayer.

    It becomes rows of the table of measures of sets.
    """

    def compute(self, dense: torch.Tensor, pruned: torch.Tensor) -> Mapping[str, float]:
        """Compute the measure of dense and pruned states (n, D), row by row at equal positions: a number by column.

        States are float32 or float64, those of all prompts one after another. All numbers have to be finite.
        """
        raise TypeError(f"measure {type(self).__name__} does not define compute()")


def checked(measure: FurtherMeasure, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a measure has computed. Raises ValueError if it is not exactly its columns."""
    if not isinstance(found, Mapping):
        raise ValueError(
            f"measure {measure.name} returned a {type(found).__name__}; let {type(measure).__name__}.compute return a "
            f"mapping with {', '.join(measure.columns)}"
        )
    if set(found) != set(measure.columns):
        raise ValueError(
            f"measure {measure.name} computes {', '.join(map(str, found)) or 'nothing'}, but its columns are "
            f"{', '.join(measure.columns)}; let {type(measure).__name__}.compute return exactly these"
        )
    return found
