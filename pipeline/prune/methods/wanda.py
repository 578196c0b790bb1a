"""Wanda: prune by weight magnitude times input activation norm (Sun et al., arXiv 2306.11695)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Linear
from pipeline.prune.decision import Change
from pipeline.prune.methods.blockwise import BlockwisePruner, CalibratedBlock
from pipeline.prune.methods.masks import per_output, weight_masks

# Rows that are squared at a time: they stay in the processor's cache.
_ROWS = 512


@dataclass(frozen=True)
class Wanda(BlockwisePruner):
    """Prunes the lowest ``|W_ij|·sqrt(s_j)`` of each output row, block after block on the pruned blocks' outputs."""

    def change(self, block: CalibratedBlock, sparsity: Sparsity) -> Change:
        return Change(masks=lowest_metric(block.linears, energies(block), sparsity))

    def zeros(self, rows: int, columns: int, share: float) -> int:
        return rows * int(columns * share)


def energies(block: CalibratedBlock) -> dict[str, torch.Tensor]:
    """Return each matrix's mean ``column_energy`` per sequence, (in,); an expert without tokens has none."""
    energy: dict[str, torch.Tensor] = {}

    def add(names: tuple[str, ...], x: torch.Tensor) -> None:
        total = column_energy(x)
        for name in names:
            energy[name] = energy[name] + total if name in energy else total

    block.watch(add)
    return {name: total / block.sequences for name, total in energy.items()}


def lowest_metric(
    linears: Sequence[Linear], energy: Mapping[str, torch.Tensor], sparsity: Sparsity
) -> dict[str, torch.Tensor]:
    """Mark the lowest metric in each output row; a matrix without statistics is pruned by magnitude."""

    def mask(name: str, weight: torch.Tensor) -> torch.Tensor:
        total = energy[name] if name in energy else weight.new_ones(weight.shape[1]).float()
        return per_output(metric(weight, total), sparsity)

    return weight_masks(linears, mask)


def column_energy(x: torch.Tensor) -> torch.Tensor:
    """Sum the squared inputs over all leading dimensions: (..., in) to (in,), in float32."""
    total = torch.zeros(x.shape[-1], device=x.device)
    for rows in x.reshape(-1, x.shape[-1]).split(_ROWS):
        total += rows.to(torch.float32, copy=True).square_().sum(0)
    return total


def metric(weight: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
    """Compute ``|W_ij|·sqrt(s_j)`` in float32: (out, in) weights and (in,) mean energy per sequence to (out, in)."""
    return weight.abs().float() * energy.sqrt()
