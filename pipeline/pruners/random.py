"""Random pruning: the control that says what a criterion is worth. The seed of the experiment decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.decoder import Decoder
from pipeline.pruners.base import Context, Pruner
from pipeline.pruners.decision import Decision
from pipeline.pruners.magnitude import WeightwisePruner
from pipeline.pruners.masks import per_matrix
from pipeline.pruners.shortgpt import blocks_to_remove
from pipeline.pruners.sublayer_drop import drop_sublayers
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class RandomBlocks(Pruner):
    """Removes random blocks."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    unit: ClassVar[str] = "block"
    calibrated: ClassVar[bool] = False

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        order = torch.randperm(len(decoder.blocks)).tolist()
        return Decision(blocks=tuple(sorted(order[: blocks_to_remove(decoder, sparsity)])))


@dataclass(frozen=True)
class RandomSublayers(Pruner):
    """Drops random sublayers of one kind."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    calibrated: ClassVar[bool] = False

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        order = torch.randperm(len(decoder.blocks)).tolist()
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
    """Zeroes random weights of each linear layer."""

    def mask(self, weight: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
        return per_matrix(torch.rand(weight.shape), sparsity)
