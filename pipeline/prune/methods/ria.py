"""RIA: prune by the weight relative to its row and its column, times input activation.

Relative importance and activations (Zhang et al., ICLR 2024, "Plug-and-Play"): a weight counts by its part of what its
input channel and its output channel weigh, so that no channel is lost as a whole. The paper's permutation of channels
for N:M patterns is not carried out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Within
from pipeline.prune.decision import Change
from pipeline.prune.methods.blockwise import BlockwisePruner, CalibratedBlock
from pipeline.prune.methods.masks import per_matrix, weight_masks
from pipeline.prune.methods.wanda import energies


@dataclass(frozen=True)
class RIA(BlockwisePruner):
    """Prunes the lowest ``(|W_ij| / Σ_i |W_ij| + |W_ij| / Σ_j |W_ij|) · ‖X_j‖^a`` of each matrix, block after block.

    ``power`` is a: 0 leaves the activations out. ‖X_j‖ is the norm of an input over the text, as with Wanda.
    """

    power: Annotated[float, Within(0, 10, "a number from 0 to 10, such as 0.5")] = 0.5

    def change(self, block: CalibratedBlock, sparsity: Sparsity) -> Change:
        energy = energies(block)

        def mask(name: str, weight: torch.Tensor) -> torch.Tensor:
            found = relative_importance(weight)
            # An expert that no token reached has no activations.
            return per_matrix(found * energy[name].sqrt() ** self.power if name in energy else found, sparsity)

        return Change(masks=weight_masks(block.linears, mask))


def relative_importance(weight: torch.Tensor) -> torch.Tensor:
    """Compute what each weight (out, in) is of the magnitudes of its column, plus of its row, in float32."""
    size = weight.abs().float()
    # A channel of zeros has no parts.
    least = torch.finfo(torch.float32).tiny
    return size / size.sum(0).clamp_(min=least) + size / size.sum(1, keepdim=True).clamp_(min=least)
