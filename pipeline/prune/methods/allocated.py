"""Weight pruners with a sparsity for each block, at the same total number of zeroed weights as with one everywhere.

The method prunes each block to its sparsity as usual. Of these pruners, those by divergence are here: they remove more
from blocks whose weights matter less to the text that the model generates. Each block is pruned alone at a few
sparsities, and KL(dense‖pruned) is measured at the positions that predict the dense model's own continuations. These
curves determine the sparsity of each block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from pipeline.config.component import stable_name
from pipeline.config.sparsity import Sparsity, exactly
from pipeline.model.decoder import Decoder, Linear
from pipeline.model.offload import resident
from pipeline.model.prefix import shared_prefix
from pipeline.model.proof import head_of
from pipeline.model.structure import BLOCK
from pipeline.model.trajectory import forwards
from pipeline.prune.base import Context, Pruner, Score
from pipeline.prune.decision import Change, Decision
from pipeline.prune.methods.allocation import Curve, allocate, settle, smooth
from pipeline.prune.methods.blockwise import BlockwisePruner, walk
from pipeline.prune.methods.divergence import CONFIDENCE, DensePredictions
from pipeline.prune.methods.magnitude import Magnitude, WeightwisePruner
from pipeline.prune.methods.sparsegpt import SparseGPT
from pipeline.prune.methods.wanda import Wanda, energies, lowest_metric
from pipeline.prune.surgery import changed_weights

# Sparsities at which each block is tried.
GRID = (0.2, 0.4, 0.6, 0.8)
Trial = Callable[[Sequence[Linear], Sparsity], Change]


@dataclass(frozen=True)
class AllocatedPruner(Pruner):
    """A pruner of weights with a sparsity for each block, from scores that serve every sparsity.

    ``scores`` are these, each row with the sparsity ``chosen`` for its block, followed by the method's own scores.
    Implement ``method``, ``importance`` and ``wanted``.
    """

    version: ClassVar[int] = 3
    accepts: ClassVar[tuple[str, ...]] = ("fraction",)
    unit: ClassVar[str] = "weight"

    def method(self) -> BlockwisePruner | WeightwisePruner:
        """Return the pruner that carries out the allocation."""
        raise TypeError(f"pruner {type(self).__name__} does not define method()")

    def wanted(self, sizes: Sequence[int], share: float, rows: Sequence[Score]) -> list[float]:
        """Return a sparsity for each block, from the scores and the blocks' numbers of weights; ``share`` on average.

        They are shifted by the same small amount until whole weights add up.
        """
        raise TypeError(f"pruner {type(self).__name__} does not define wanted()")

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"method": self.method().identity()}

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        if sparsity.is_zero:
            return Decision()
        rows = context.scores({})
        chosen = self.shares(decoder, sparsity.fraction, rows)
        decision = self.method().decide_each(decoder, [exactly(share) for share in chosen], context)
        described = [row | {"chosen": chosen[int(row["layer"])]} for row in rows]
        return replace(decision, scores=[*described, *decision.scores])

    def shares(self, decoder: Decoder, share: float, rows: Sequence[Score]) -> list[float]:
        """Compute the sparsity of each block from the scores."""
        method = self.method()
        shapes = [[tuple(linear.weight.shape) for linear in decoder.linears(at)] for at in range(len(decoder.blocks))]

        def zeros(layer: int, share: float) -> int:
            return sum(method.zeros(rows, columns, share) for rows, columns in shapes[layer])

        sizes = [sum(rows * columns for rows, columns in each) for each in shapes]
        target = sum(zeros(layer, share) for layer in range(len(shapes)))
        return settle(self.wanted(sizes, share, rows), zeros, target)


@dataclass(frozen=True)
class AllocatedByDivergence(AllocatedPruner):
    """A pruner with a sparsity for each block, from curves of the divergence: rows with the ``sparsity`` tried.

    Implement ``method`` and ``trial``; ``tried`` is the pruner whose masks the latter makes. Positions may be weighted
    by the dense model's largest probability to the power of ``confidence``.
    """

    confidence: float = CONFIDENCE

    compares: ClassVar[bool] = True
    own_text: ClassVar[bool] = True
    tried: ClassVar[type[Pruner]]

    def trial(self, decoder: Decoder, context: Context) -> Trial:
        """Return the function that is tried on the matrices of one block of the dense model."""
        raise TypeError(f"pruner {type(self).__name__} does not define trial()")

    def scoring_identity(self) -> dict[str, Any]:
        """Return what the curves depend on: methods that are tried in the same way share them."""
        return {
            "type": "AllocationCurves",
            "version": self.version,
            "tried": stable_name(self.tried),
            "tried_version": self.tried.version,
            "confidence": self.confidence,
        }

    @torch.inference_mode()
    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Measure the divergence with one block pruned alone, for each block and each sparsity of ``GRID``."""
        trajectory = context.trajectory
        assert trajectory is not None
        trial, rows = self.trial(decoder, context), list[Score]()
        layers = range(len(decoder.blocks))
        passes = list(forwards(trajectory, tight=True))
        with shared_prefix(decoder, passes) as prefix:
            dense = DensePredictions(head_of(decoder, torch.float32), trajectory, self.confidence)
            for layer in context.progress(layers, "divergence of each block alone", len(layers)):
                with resident(decoder.blocks[layer]):
                    for share in GRID:
                        change = trial(decoder.linears(layer), exactly(share))
                        with changed_weights(decoder.model, change, change.masks):
                            value = dense.divergence(prefix.final(layer, index) for index in range(len(passes)))
                        rows.append({"layer": layer, "sublayer": BLOCK, "score": value, "sparsity": share})
        return rows

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        if sparsity.fraction > GRID[-1]:
            raise ValueError(
                f"sparsity={sparsity.given} is more than {GRID[-1]}, the most that pruner={self.name} tries in a "
                f"block; give at most {GRID[-1]}, or a pruner that removes the same fraction from every block"
            )
        return super().decide(decoder, sparsity, context)

    def wanted(self, sizes: Sequence[int], share: float, rows: Sequence[Score]) -> list[float]:
        return allocate(_curves(rows), sizes, share)


@dataclass(frozen=True)
class WandaDivergence(AllocatedByDivergence):
    """Wanda, tried with the norms of the dense activations."""

    tried: ClassVar[type[Pruner]] = Wanda

    def method(self) -> BlockwisePruner | WeightwisePruner:
        return Wanda(self.name)

    def trial(self, decoder: Decoder, context: Context) -> Trial:
        return wanda_trial(decoder, context)


@dataclass(frozen=True)
class SparseGPTDivergence(AllocatedByDivergence):
    """SparseGPT, tried as Wanda: to solve a block for every sparsity of the grid would take many times as long."""

    inclusive: bool = False

    tried: ClassVar[type[Pruner]] = Wanda

    def method(self) -> BlockwisePruner | WeightwisePruner:
        return SparseGPT(self.name, self.inclusive)

    def trial(self, decoder: Decoder, context: Context) -> Trial:
        return wanda_trial(decoder, context)


@dataclass(frozen=True)
class MagnitudeDivergence(AllocatedByDivergence):
    """Magnitude pruning, calibrated only through its curves."""

    inclusive: bool = False

    tried: ClassVar[type[Pruner]] = Magnitude

    def method(self) -> BlockwisePruner | WeightwisePruner:
        return Magnitude(self.name, self.inclusive)

    def trial(self, decoder: Decoder, context: Context) -> Trial:
        return Magnitude(self.name).change


def wanda_trial(decoder: Decoder, context: Context) -> Trial:
    """Return a trial of Wanda's masks, with statistics of the dense model."""
    energy: dict[str, torch.Tensor] = {}
    with closing(walk(decoder, context, "activation norms")) as blocks:
        for block in blocks:
            energy |= energies(block)
    return lambda linears, sparsity: Change(masks=lowest_metric(linears, energy, sparsity))


def _curves(rows: Sequence[Score]) -> list[Curve]:
    """Return the smoothed curve of each block."""
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        points[int(row["layer"])].append((float(row["sparsity"]), float(row["score"])))
    return [smooth(points[layer]) for layer in sorted(points)]
