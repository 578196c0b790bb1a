"""Random pruning: the control against which a criterion is judged.

One choice says little, so there may be several ``draw``s: replicates of one pruner. A draw's choice follows from the
kind of unit, the sparsity, the experiment's seed and the number of the draw; choices that differ in any of these are
independent. In particular, what a larger sparsity removes does not include what a smaller one removes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, Literal

import torch

from pipeline.config.component import replicate
from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Positive
from pipeline.model.decoder import Decoder
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import Change, Decision
from pipeline.prune.methods.masks import per_matrix, weight_masks
from pipeline.prune.methods.units import UnitPruner, decision_of


def generator(*purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator whose numbers are the same for the same purpose, and independent of those for any other.

    Seeds that lie next to each other give unrelated numbers, and so do the words of one purpose in another order.
    """
    digest = blake2b(json.dumps(purpose).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))


@dataclass(frozen=True)
class RandomUnits(UnitPruner):
    """Removes random units of one kind. ``draw`` numbers the random choices under one seed of the experiment."""

    unit: Literal["attention", "mlp", "block"] = "attention"  # type: ignore[misc]
    draw: Positive = replicate(1)

    version: ClassVar[int] = 3
    calibrated: ClassVar[bool] = False

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        numbers = generator("random pruning", self.unit, sparsity.given, context.seed, self.draw)
        units = self.units(decoder)
        order = torch.randperm(len(units), generator=numbers).tolist()
        return decision_of([units[at] for at in order[: self.count(decoder, sparsity)]], [])


@dataclass(frozen=True)
class RandomWeights(Pruner):
    """Zeroes random weights of each linear layer inside the decoder blocks; ``draw`` as in `RandomUnits`."""

    draw: Positive = replicate(1)

    version: ClassVar[int] = 3
    calibrated: ClassVar[bool] = False
    accepts: ClassVar[tuple[str, ...]] = ("fraction", "pattern")
    unit: ClassVar[str] = "weight"

    @torch.no_grad()
    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        if sparsity.is_zero:
            return Decision()
        numbers = generator("random pruning", self.unit, sparsity.given, context.seed, self.draw)

        def mask(name: str, weight: torch.Tensor) -> torch.Tensor:
            return per_matrix(torch.rand(weight.shape, generator=numbers), sparsity)

        layers = range(len(decoder.blocks))
        for layer in context.progress(layers, self.name, len(layers)):
            context.changes[layer] = Change(masks=weight_masks(decoder.linears(layer), mask))
        return Decision(changes=context.changes)
