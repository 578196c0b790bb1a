"""OWL: less sparsity for blocks with more outliers, in the sum as much as everywhere the same.

Outlier weighed layerwise sparsity (Yin et al., ICML 2024, arXiv 2310.05175). A block's outlier ratio is the share of
its weights whose Wanda metric is more than M times the mean over the block, on the dense model. The share of weights
that a block keeps rises linearly with it, within a range of 2λ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from pipeline.config.types import Share, Within
from pipeline.model.decoder import Decoder, Linear
from pipeline.model.structure import BLOCK
from pipeline.prune.base import Context, Score
from pipeline.prune.methods.allocated import AllocatedPruner
from pipeline.prune.methods.allocation import stretched
from pipeline.prune.methods.blockwise import BlockwisePruner, walk
from pipeline.prune.methods.wanda import Wanda, energies, metric


@dataclass(frozen=True)
class WandaOWL(AllocatedPruner):
    """Wanda with OWL's sparsity for each block. ``threshold`` is M, and ``reach`` is λ; scores are outlier ratios."""

    threshold: Annotated[float, Within(1, 1e6, "a number of at least 1, such as 5")] = 5.0
    reach: Share = 0.08

    def method(self) -> BlockwisePruner:
        return Wanda(self.name)

    def scoring_identity(self) -> dict[str, Any]:
        """Return what outlier ratios depend on, Wanda's metric among it."""
        return {key: value for key, value in super().scoring_identity().items() if key != "reach"}

    @torch.inference_mode()
    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Measure the outlier ratio of each block."""
        rows: list[Score] = []
        with closing(walk(decoder, context, "outliers")) as blocks:
            for block in blocks:
                ratio = outlier_ratio(block.linears, energies(block), self.threshold)
                rows.append({"layer": block.layer, "sublayer": BLOCK, "score": ratio})
        return rows

    def wanted(self, sizes: Sequence[int], share: float, rows: Sequence[Score]) -> list[float]:
        ratios = [row["score"] for row in sorted(rows, key=lambda row: int(row["layer"]))]
        kept = stretched(ratios, 0, 2 * self.reach)
        return [float(value) for value in share + kept.mean() - kept]


def outlier_ratio(linears: Sequence[Linear], energy: Mapping[str, torch.Tensor], threshold: float) -> float:
    """Compute the share of a block's weights whose metric is above ``threshold`` times its mean over all of them.

    Matrices without statistics, those of experts that no token reached, are left out.
    """
    metrics = [metric(linear.weight, energy[linear.name]) for linear in linears if linear.name in energy]
    size = sum(map(torch.numel, metrics))
    mean = sum(float(one.sum(dtype=torch.float64)) for one in metrics) / size
    return sum(int((one > threshold * mean).sum()) for one in metrics) / size
