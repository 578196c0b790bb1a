"""Masks of the weights to prune: pure functions from (out, in) metrics to (out, in) masks, True = pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Linear
from pipeline.model.finite import check_values


def lowest_per_row(metric: torch.Tensor, count: int) -> torch.Tensor:
    """Mark exactly the ``count`` lowest entries of each row; among equals the earlier columns come first.

    Raises ValueError if the metric is not finite.
    """
    check_values(metric, "pruning metrics")
    if count == 0:
        return torch.zeros_like(metric, dtype=torch.bool)
    threshold = metric.kthvalue(count, dim=1, keepdim=True).values
    below, equal = metric < threshold, metric == threshold
    missing = count - below.sum(1, keepdim=True)
    return below | (equal & (equal.cumsum(1) <= missing))


def lowest_overall(metric: torch.Tensor, count: int) -> torch.Tensor:
    """Mark exactly the ``count`` lowest entries of the whole matrix; among equals the earlier come first."""
    return lowest_per_row(metric.reshape(1, -1), count).view_as(metric)


def n_of_m(metric: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """Mark the ``n`` lowest of every ``m`` neighbouring columns. Raises ValueError if ``m`` does not divide them."""
    rows, columns = metric.shape
    if columns % m:
        raise ValueError(f"{n}:{m} needs a multiple of {m} input columns, but a weight matrix has {columns}")
    check_values(metric, "pruning metrics")
    groups = metric.reshape(-1, m)
    # Public code takes its N of M by topk: this matches its choice among exact ties (dead columns).
    lowest = groups.topk(n, dim=1, largest=False).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, lowest, True).view(rows, columns)


def per_output(metric: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
    """Mark the lowest ``int(columns · fraction)`` of each row, or N of every M columns: Wanda's comparison group."""
    if sparsity.kind == "pattern":
        return n_of_m(metric, sparsity.n, sparsity.m)
    return lowest_per_row(metric, int(metric.shape[1] * sparsity.fraction))


def per_matrix(metric: torch.Tensor, sparsity: Sparsity, inclusive: bool = False) -> torch.Tensor:
    """Mark the lowest ``int(entries · fraction)`` of the matrix, or N of every M columns: magnitude's comparison group.

    ``inclusive`` prunes one entry more, like public code that compares with the zero-based k-th smallest.
    """
    if sparsity.kind == "pattern":
        return n_of_m(metric, sparsity.n, sparsity.m)
    count = int(metric.numel() * sparsity.fraction) + int(inclusive and not sparsity.is_zero)
    return lowest_overall(metric, min(count, metric.numel()))


Choose = Callable[[str, torch.Tensor], torch.Tensor]


def weight_masks(linears: Sequence[Linear], choose: Choose) -> dict[str, torch.Tensor]:
    """Return masks by parameter, in the parameter's own shape, from ``choose(name, weight)`` for (out, in) weights.

    Raises ValueError for a mask of another shape.
    """
    masks: dict[str, torch.Tensor] = {}
    for linear in linears:
        shape = getattr(linear.module, linear.attribute).shape
        mask = masks.setdefault(linear.parameter, torch.zeros(shape, dtype=torch.bool))
        linear.view(mask).copy_(_of_its_shape(choose(linear.name, linear.weight), linear))
    return masks


def new_weights(linears: Sequence[Linear], choose: Choose) -> dict[str, torch.Tensor]:
    """Return new weights by parameter, as ``weight_masks`` does masks.

    ``choose`` gets float32 and the result has the parameter's dtype. Raises ValueError for weights of another shape.
    """
    weights: dict[str, torch.Tensor] = {}
    for linear in linears:
        whole = getattr(linear.module, linear.attribute).data
        value = weights.setdefault(linear.parameter, whole.cpu().clone())
        linear.view(value).copy_(_of_its_shape(choose(linear.name, linear.weight.float()), linear))
    return weights


def _of_its_shape(chosen: torch.Tensor, linear: Linear) -> torch.Tensor:
    # A smaller tensor would be repeated over the weight without a word.
    if chosen.shape != linear.weight.shape:
        shapes = tuple(chosen.shape), tuple(linear.weight.shape)
        raise ValueError(f"what was chosen for {linear.name} has the shape {shapes[0]}, but its weight {shapes[1]}")
    return chosen
