"""AlphaPruning: more sparsity for blocks whose weights have a less heavy-tailed spectrum.

AlphaPruning (Lu et al., NeurIPS 2024, arXiv 2410.10912) takes the exponent of a power law in the tail of the
eigenvalues of ``WᵀW`` as a sign of how well a matrix is trained (PL_Alpha_Hill): the smaller, the better, and the less
is removed. The exponent is Hill's (1975) estimate, of the tail that begins where the density of the eigenvalues'
logarithms is highest. The public code tries all beginnings up to 1.5 times as far, and takes the one that fits best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.config.types import Part
from pipeline.model.decoder import Decoder, Linear
from pipeline.model.offload import resident
from pipeline.model.structure import BLOCK
from pipeline.prune.base import Context, Score
from pipeline.prune.methods.allocated import AllocatedPruner
from pipeline.prune.methods.allocation import stretched
from pipeline.prune.methods.blockwise import BlockwisePruner
from pipeline.prune.methods.wanda import Wanda

# Bins of the histogram whose highest one the tail begins in.
_BINS = 100
# Eigenvalues that are smaller in relation to the largest are zero but for rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class WandaAlphaPruning(AllocatedPruner):
    """Wanda with AlphaPruning's sparsity for each block; scores are the mean exponents of the blocks' matrices.

    ``epsilon`` is the range: before blocks are brought to the total, they lose from 1 - ε to 1 + ε times the fraction.
    """

    epsilon: Part = 0.3

    def method(self) -> BlockwisePruner:
        return Wanda(self.name)

    def scoring_identity(self) -> dict[str, Any]:
        """Return what exponents depend on."""
        return {key: value for key, value in super().scoring_identity().items() if key not in ("epsilon", "method")}

    @torch.inference_mode()
    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Compute the mean exponent of each block. It does not depend on the text."""
        rows: list[Score] = []
        for layer in context.progress(range(len(decoder.blocks)), "spectra", len(decoder.blocks)):
            with resident(decoder.blocks[layer]):
                score = _mean_exponent(decoder.linears(layer))
            rows.append({"layer": layer, "sublayer": BLOCK, "score": score})
        return rows

    def wanted(self, sizes: Sequence[int], share: float, rows: Sequence[Score]) -> list[float]:
        exponents = [row["score"] for row in sorted(rows, key=lambda row: int(row["layer"]))]
        factors = stretched(exponents, 1 - self.epsilon, 1 + self.epsilon)
        return [float(factor) for factor in factors * share * sum(sizes) / (factors @ sizes)]


def _mean_exponent(linears: Sequence[Linear]) -> float:
    """Return the mean exponent of matrices, without those whose spectrum has no tail; NaN if none has one."""
    found = [exponent(torch.linalg.svdvals(linear.weight.float()).square()) for linear in linears]
    there = [value for value in found if math.isfinite(value)]
    return sum(there) / len(there) if there else math.nan


def exponent(eigenvalues: torch.Tensor) -> float:
    """Estimate the exponent α of a density ~ λ^-α in the tail of eigenvalues (n,); infinite if there is no tail."""
    values = eigenvalues.double().cpu()
    values = values[values > _ROUNDING * values.max()].sort().values
    if len(values) < 2:
        return math.inf
    return hill(values[-tail_of(values) :])


def tail_of(values: torch.Tensor) -> int:
    """Return how many of the values (n,), in ascending order, are not below the fullest bin of their logarithms."""
    logarithms = values.log10()
    low, high = float(logarithms[0]), float(logarithms[-1])
    start = low + int(torch.histc(logarithms, _BINS, low, high).argmax()) * (high - low) / _BINS
    return int((logarithms >= start).sum())


def hill(tail: torch.Tensor) -> float:
    """Return Hill's estimate ``1 + k / Σ ln(λ_i / λ_1)`` of the k values (k,) of a tail, in ascending order."""
    excess = float((tail / tail[0]).log().sum())
    return 1 + len(tail) / excess if excess else math.inf
