"""SparseGPT: prune, and let the remaining weights compensate (Frantar & Alistarh, arXiv 2301.00774)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.prune.decision import Change
from pipeline.prune.methods.blockwise import BlockwisePruner, CalibratedBlock
from pipeline.prune.methods.hessian import DAMPING, Moments, inverse_factor
from pipeline.prune.methods.masks import lowest_overall, n_of_m

log = logging.getLogger(__name__)
# Columns that are pruned with one threshold before the columns after them are updated.
BLOCK = 128
# Bytes of moments gathered in one pass: as many layers as fit; larger ones take a pass each.
_BUDGET = 2**29


@dataclass(frozen=True)
class SparseGPT(BlockwisePruner):
    """Prunes by the error ``w²/d²``, d from the inverse input moments; later columns compensate for earlier ones.

    ``inclusive`` also prunes the entry at each threshold, one more than asked for, as public reference code does.
    """

    inclusive: bool = False

    def change(self, block: CalibratedBlock, sparsity: Sparsity) -> Change:
        change = Change()
        linears = {linear.name: linear for linear in block.linears}
        for moments in gather(block):
            for names, gathered in moments.items():
                hessian = gathered.hessian(block.sequences)
                factor, dead, damping = factorise(hessian)
                for name in names:
                    linear = linears[name]
                    weight, mask = compensate(linear.weight.float(), factor, dead, sparsity, self.inclusive)
                    whole = getattr(linear.module, linear.attribute).data
                    kept = change.weights.setdefault(linear.parameter, whole.clone())
                    linear.view(kept).copy_(weight)
                    masks = change.masks.setdefault(linear.parameter, torch.zeros(whole.shape, dtype=torch.bool))
                    linear.view(masks).copy_(mask)
                    error = reconstruction_error(linear.weight.float() - weight, hessian)
                    change.notes.append(_note(block.layer, name, error, damping, int(dead.sum())))
        return change


def gather(block: CalibratedBlock) -> Iterator[dict[tuple[str, ...], Moments]]:
    """Yield moments by the names of the matrices that share them, in as many passes as memory requires.

    An expert that no calibration token reached gets the identity, so its weights count by magnitude.
    """
    device = block.linears[0].weight.device
    widths = {linear.name: linear.weight.shape[1] for linear in block.linears}
    waiting = set(widths)
    while waiting:
        moments: dict[tuple[str, ...], Moments] = {}
        postponed: set[str] = set()

        def add(names: tuple[str, ...], x: torch.Tensor, to: Any = moments, later: Any = postponed) -> None:
            known = next((group for group in to if names[0] in group), None)
            if known is None:
                size = sum(4 * widths[group[0]] ** 2 for group in to)
                if names[0] in later or (to and size + 4 * x.shape[1] ** 2 > _BUDGET):
                    later.update(names)
                    return
                known = names
                to[known] = Moments(x.shape[1], device)
            to[known].add(x)

        block.watch(add, only=waiting)
        unseen = waiting - postponed - {name for group in moments for name in group}
        moments |= {(name,): Moments.identity(widths[name], device) for name in sorted(unseen)}
        yield moments
        waiting = postponed


def factorise(hessian: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the inverse factor (in, in), the dead columns (in,) whose input is always zero, and the damping needed."""
    dead = hessian.diagonal() == 0
    alive = hessian.clone()
    alive.diagonal()[dead] = 1
    factor, damping = inverse_factor(alive)
    return factor, dead, damping


def compensate(
    weight: torch.Tensor, factor: torch.Tensor, dead: torch.Tensor, sparsity: Sparsity, inclusive: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pruned and updated weights (out, in) float32, and the mask of those that are zero.

    ``factor`` and ``dead`` come from ``factorise``; weights of dead columns are zero in any case. Masks are chosen
    over all rows of a block of columns at once, or N of every M columns on weights that are updated already; exactly
    ``int(entries · fraction)`` of the whole matrix are pruned, unless ``inclusive``. Raises ValueError if M does not
    divide the columns.
    """
    columns = weight.T.clone(memory_format=torch.contiguous_format)
    columns[dead] = 0
    width, rows = columns.shape
    if sparsity.kind == "pattern" and width % sparsity.m:
        raise ValueError(
            f"{sparsity.given} needs a multiple of {sparsity.m} input columns, but a weight matrix has {width}"
        )
    mask = torch.zeros_like(columns, dtype=torch.bool)
    # A block has to hold whole groups of M columns.
    step = BLOCK - BLOCK % sparsity.m if 0 < sparsity.m <= BLOCK else max(BLOCK, sparsity.m)
    for start in range(0, width, step):
        stop = min(start + step, width)
        part, inner, chosen = columns[start:stop], factor[start:stop, start:stop], mask[start:stop]
        if sparsity.kind != "pattern":
            done, until = (int(rows * at * sparsity.fraction) for at in (start, stop))
            count = int(part.numel() * sparsity.fraction) + 1 if inclusive else until - done
            chosen |= lowest_overall(_saliency(part, inner).T, min(count, part.numel())).T
        errors = _sweep(part, inner, chosen, sparsity)
        columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return columns.T.contiguous(), (mask | dead[:, None]).T.contiguous()


def _sweep(part: torch.Tensor, inner: torch.Tensor, chosen: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
    """Prune a block's columns in order, compensate each in the columns after it, and return the scaled losses."""
    errors = torch.empty_like(part)
    for i in range(len(part)):
        if sparsity.kind == "pattern" and i % sparsity.m == 0:
            group = slice(i, i + sparsity.m)
            chosen[group] |= n_of_m(_saliency(part[group], inner[group, group]).T, sparsity.n, sparsity.m).T
        error = torch.where(chosen[i], part[i], 0).div_(inner[i, i])
        part[i].masked_fill_(chosen[i], 0)
        part[i + 1 :].addr_(inner[i, i + 1 :], error, alpha=-1)
        errors[i] = error
    return errors


def _saliency(columns: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return columns.square() / factor.diagonal().square()[:, None]


def reconstruction_error(delta: torch.Tensor, hessian: torch.Tensor) -> float:
    """Compute the mean squared change of the outputs per sequence, ``tr(ΔW H ΔWᵀ) / 2`` with H as in ``Moments``."""
    return float(((delta @ hessian) * delta).sum() / 2)


def _note(layer: int, name: str, error: float, damping: float, dead: int) -> dict[str, Any]:
    if damping > DAMPING:
        log.warning("%s: singular input moments, damping raised to %g", name, damping)
    return {"layer": layer, "sublayer": name, "score": error, "damping": damping, "dead_columns": dead}
