"""DSnoT: correct Wanda's masks by exchanging weights, row by row, so that the mean output comes back.

Dynamic Sparse no Training (Zhang et al., ICLR 2024, arXiv 2310.08915). What a row has lost is ``ε = Σ W_ij Σ_t x_tj``
over its pruned weights. Each cycle brings back the pruned weight whose term lessens ε most for the variance of its
input, and prunes a kept one whose loss lessens ε too, the one of the lowest Wanda metric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Positive, Within
from pipeline.prune.decision import Change
from pipeline.prune.methods.blockwise import BlockwisePruner, CalibratedBlock
from pipeline.prune.methods.masks import per_output, weight_masks
from pipeline.prune.methods.wanda import column_energy, metric

_INFINITE = float("inf")


@dataclass(frozen=True)
class DSnoT(BlockwisePruner):
    """Wanda's masks, exchanged at most ``cycles`` times a row, until its error is at most ``threshold``.

    The error is the change of an output, summed over a sequence and averaged over all of them. Of an N:M pattern the
    lowest kept weight of the same group goes, and a row ends before its error would change its sign, as in the public
    code. By its default, that code leaves out the MLP, which is corrected here; and it averages the variances within
    each sequence, where here the variance is that over all tokens.
    """

    version: ClassVar[int] = 2
    cycles: Positive = 50
    threshold: Annotated[float, Within(0, 1e9, "a number of at least 0, such as 0.1")] = 0.1

    def change(self, block: CalibratedBlock, sparsity: Sparsity) -> Change:
        inputs = inputs_of(block)

        def mask(name: str, weight: torch.Tensor) -> torch.Tensor:
            if name not in inputs:
                # An expert that no token reached is pruned by magnitude.
                return per_output(weight.abs().float(), sparsity)
            own = inputs[name]
            size = metric(weight, own.energy)
            return exchanged(
                per_output(size, sparsity), weight.float() * own.mean, size, own.variance, self.cycles, self.threshold,
                sparsity.m,
            )  # fmt: skip

        return Change(masks=weight_masks(block.linears, mask))

    def zeros(self, rows: int, columns: int, share: float) -> int:
        return rows * int(columns * share)


@dataclass
class Inputs:
    """Sums of a matrix's inputs, of their squares and of squares around their mean, (in,) float64.

    They are over ``tokens`` of so many ``sequences``.
    """

    total: torch.Tensor
    squares: torch.Tensor
    around: torch.Tensor
    tokens: int
    sequences: int

    @property
    def mean(self) -> torch.Tensor:
        """The sum over a sequence, (in,) float32, averaged over sequences."""
        return (self.total / self.sequences).float()

    @property
    def energy(self) -> torch.Tensor:
        """The squares summed over a sequence, (in,) float32, averaged over sequences, as Wanda takes them."""
        return (self.squares / self.sequences).float()

    @property
    def variance(self) -> torch.Tensor:
        """The variance over tokens, (in,) float32."""
        return (self.around / self.tokens).float()

    def add(self, total: torch.Tensor, squares: torch.Tensor, around: torch.Tensor, tokens: int) -> None:
        """Add the sums of more tokens; squares around two means are put together as by Chan et al. (1983)."""
        if self.tokens:
            apart = total / tokens - self.total / self.tokens
            around = around + apart.square() * (self.tokens * tokens / (self.tokens + tokens))
        self.total += total
        self.squares += squares
        self.around += around
        self.tokens += tokens


def inputs_of(block: CalibratedBlock) -> dict[str, Inputs]:
    """Return statistics of each matrix's inputs; an expert without tokens has none."""
    found: dict[str, Inputs] = {}

    def add(names: tuple[str, ...], x: torch.Tensor) -> None:
        if not len(x):
            return
        total, squares = x.sum(0, dtype=torch.float64), column_energy(x).double()
        # The difference of E[x²] and E[x]² would lose a small variance beside a large mean.
        around = column_energy(x.float() - (total / len(x)).float()).double()
        for name in names:
            zero = torch.zeros_like(total)
            own = found.setdefault(name, Inputs(zero, zero.clone(), zero.clone(), 0, block.sequences))
            own.add(total, squares, around, len(x))

    block.watch(add)
    return found


def exchanged(
    mask: torch.Tensor,
    terms: torch.Tensor,
    size: torch.Tensor,
    variance: torch.Tensor,
    cycles: int,
    threshold: float,
    group: int = 0,
) -> torch.Tensor:
    """Return a mask (out, in) of as many pruned weights a row, after exchanges that lessen what each row has lost.

    Weights that are exchanged once are not exchanged again. A row ends when it has no more candidates.

    Args:
        mask: what is pruned so far.
        terms: what each weight adds to its output's sum, (out, in).
        size: Wanda's metric, (out, in).
        variance: of the inputs, (in,).
        cycles: the most exchanges of a row.
        threshold: the error, as a magnitude, at which a row ends.
        group: M of an N:M pattern, whose exchanges stay within their group of neighbouring columns; 0 without one.
    """
    mask, rows = mask.clone(), torch.arange(len(mask), device=mask.device)
    error = torch.where(mask, terms, 0).sum(1)
    began, active = error.sign(), torch.ones_like(rows, dtype=torch.bool)
    # Candidates have the sign of the error to come back, and the other sign to go.
    weighed = terms / variance.clamp(min=torch.finfo(torch.float32).tiny)
    free, kept = mask.clone(), ~mask
    for _ in range(cycles):
        active &= error.abs() > threshold
        if not active.any():
            break
        sign = torch.where(error > 0, 1.0, -1.0)[:, None]
        gain, back = torch.where(free, weighed * sign, 0).max(1)
        if group:
            same = torch.arange(mask.shape[1], device=mask.device) // group == (back // group)[:, None]
            allowed = kept & same
        else:
            allowed = kept & (terms * sign < 0)
        loss, gone = torch.where(allowed, size, _INFINITE).min(1)
        after = error + terms[rows, gone] - terms[rows, back]
        active &= (gain > 0) & loss.isfinite()
        if group:
            active &= after.sign() == began
        at = rows[active]
        mask[at, back[active]], mask[at, gone[active]] = False, True
        free[at, back[active]], kept[at, gone[active]] = False, False
        error = torch.where(active, after, error)
    return mask
