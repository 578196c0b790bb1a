"""Random pruning: the control that says what a criterion is worth.

One choice says little, so that there may be several ``draw``s: from the second on, each has its number in its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.component import Positive
from pipeline.decoder import Decoder
from pipeline.pruners.base import Context, Pruner
from pipeline.pruners.decision import Decision
from pipeline.pruners.magnitude import WeightwisePruner
from pipeline.pruners.masks import per_matrix
from pipeline.pruners.shortgpt import blocks_to_remove
from pipeline.pruners.sublayer_drop import drop_sublayers
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class RandomPruner(Pruner):
    """``draw`` numbers the random choices under one seed of the experiment."""

    draw: Positive = 1

    def __post_init__(self) -> None:
        if self.draw > 1:
            object.__setattr__(self, "name", f"{self.name}_{self.draw}")

    def order(self, decoder: Decoder) -> list[int]:
        """The blocks in a random order."""
        generator = torch.Generator().manual_seed(torch.initial_seed() + self.draw - 1)
        return torch.randperm(len(decoder.blocks), generator=generator).tolist()


@dataclass(frozen=True)
class RandomBlocks(RandomPruner):
    """Removes random blocks."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    unit: ClassVar[str] = "block"
    calibrated: ClassVar[bool] = False

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        order = self.order(decoder)
        return Decision(blocks=tuple(sorted(order[: blocks_to_remove(decoder, sparsity)])))


@dataclass(frozen=True)
class RandomSublayers(RandomPruner):
    """Drops random sublayers of one kind."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    calibrated: ClassVar[bool] = False

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        order = self.order(decoder)
        return drop_sublayers([(self.unit, layer) for layer in order[: sparsity.units_of(len(order))]], [])


@dataclass(frozen=True)
class RandomAttention(RandomSublayers):
    """Drops random attention sublayers."""

    unit: ClassVar[str] = "attention"


@dataclass(frozen=True)
class RandomMLP(RandomSublayers):
    """Drops random MLP sublayers."""

    unit: ClassVar[str] = "mlp"


@dataclass(frozen=True)
class RandomWeights(WeightwisePruner):
    """Zeroes random weights of each linear layer; which ones, the experiment's seed decides."""

    def mask(self, weight: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
        return per_matrix(torch.rand(weight.shape), sparsity)
