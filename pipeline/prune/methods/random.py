"""Random pruning: the control that says what a criterion is worth.

One choice says little, so there may be several ``draw``s: replicates of one pruner. A draw's choice follows from the
kind of unit, the sparsity, the experiment's seed and the number of the draw; choices that differ in any of these are
independent. In particular, what a larger sparsity removes does not contain what a smaller one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.config.component import Positive, replicate
from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import Change, Decision
from pipeline.prune.methods.draws import generator
from pipeline.prune.methods.masks import per_matrix, weight_masks
from pipeline.prune.methods.shortgpt import blocks_to_remove
from pipeline.prune.methods.sublayer_drop import drop_sublayers


@dataclass(frozen=True)
class RandomPruner(Pruner):
    """``draw`` numbers the random choices under one seed of the experiment."""

    draw: Positive = replicate(1)

    version: ClassVar[int] = 2
    calibrated: ClassVar[bool] = False

    def generator(self, sparsity: Sparsity, context: Context) -> torch.Generator:
        """The random numbers of this draw at this sparsity."""
        return generator("random pruning", self.unit, sparsity.given, context.seed, self.draw)

    def choose(self, count: int, layers: int, sparsity: Sparsity, context: Context) -> list[int]:
        """``count`` different layer numbers below ``layers``, in order."""
        order = torch.randperm(layers, generator=self.generator(sparsity, context)).tolist()
        return sorted(order[:count])


@dataclass(frozen=True)
class RandomBlocks(RandomPruner):
    """Removes random blocks."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    unit: ClassVar[str] = "block"

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        count = blocks_to_remove(decoder, sparsity)
        return Decision(blocks=tuple(self.choose(count, len(decoder.blocks), sparsity, context)))


@dataclass(frozen=True)
class RandomSublayers(RandomPruner):
    """Drops random sublayers of one kind."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        layers = len(decoder.blocks)
        chosen = self.choose(sparsity.units_of(layers), layers, sparsity, context)
        return drop_sublayers([(self.unit, layer) for layer in chosen], [])


@dataclass(frozen=True)
class RandomAttention(RandomSublayers):
    """Drops random attention sublayers."""

    unit: ClassVar[str] = "attention"


@dataclass(frozen=True)
class RandomMLP(RandomSublayers):
    """Drops random MLP sublayers."""

    unit: ClassVar[str] = "mlp"


@dataclass(frozen=True)
class RandomWeights(RandomPruner):
    """Zeroes random weights of each linear layer inside the decoder blocks."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "pattern")
    unit: ClassVar[str] = "weight"

    @torch.no_grad()
    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        if sparsity.is_zero:
            return Decision()
        numbers = self.generator(sparsity, context)

        def mask(name: str, weight: torch.Tensor) -> torch.Tensor:
            return per_matrix(torch.rand(weight.shape, generator=numbers), sparsity)

        layers = range(len(decoder.blocks))
        for layer in context.progress(layers, self.name, len(layers)):
            context.changes[layer] = Change(masks=weight_masks(decoder.linears(layer), mask))
        return Decision(changes=context.changes)
