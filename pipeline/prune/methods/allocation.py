"""Allocation of sparsity: a share for each block, at a given total, that minimises the sum of the measured costs.

Pure functions on numbers. A curve is the cost of a block at increasing shares of its weights. Curves are made convex,
since the cheapest way through a dent is a mixture that single blocks cannot take. Then the last weight removed costs
the same in every block: the segments of all curves are taken in the order of their slopes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Curve = tuple[Array, Array]
# Resolution of shares.
STEP = 0.01
# Halvings of the shift that compensates for rounding: the rest is far below one weight.
_HALVINGS = 50


def smooth(points: Sequence[tuple[float, float]]) -> Curve:
    """Interpolate a curve through zero cost at share 0 and measured points (share, cost), in steps of ``STEP``.

    It never falls. Between measurements the square root is interpolated, which is close to straight: a divergence is a
    squared length. Raises ValueError for two points at one share.
    """
    # Deferred: a job that finds its results needs none of it.
    from scipy.interpolate import PchipInterpolator

    at, costs = np.array([(0.0, 0.0), *sorted(points)]).T
    if (np.diff(at) <= 0).any():
        raise ValueError(f"costs at fractions {at.tolist()} are not a curve; measure each fraction above 0 once")
    length = np.sqrt(np.maximum.accumulate(np.maximum(costs, 0)))
    fine = np.linspace(0, at[-1], round(at[-1] / STEP) + 1)
    return fine, PchipInterpolator(at, length)(fine) ** 2


def convex(curve: Curve) -> Curve:
    """Return the knots of the largest convex curve that is nowhere above, with the same first and last point."""
    knots: list[tuple[float, float]] = []
    for x, y in zip(*curve, strict=True):
        while len(knots) > 1 and _slope(knots[-2], knots[-1]) >= _slope(knots[-1], (x, y)):
            knots.pop()
        knots.append((float(x), float(y)))
    return np.array([x for x, _ in knots]), np.array([y for _, y in knots])


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])


def allocate(curves: Sequence[Curve], sizes: Sequence[int], share: float) -> list[float]:
    """Return a share for each block, within its curve: together ``share`` of all weights at the least convex cost.

    ``sizes`` are the blocks' numbers of weights. Segments with exactly the same slope are taken in equal parts: equal
    blocks get equal shares. Raises ValueError if the curves do not allow for that share.
    """
    hulls = [convex(curve) for curve in curves]
    weights = np.array(sizes, float)
    first, last = (np.array([x[end] for x, _ in hulls]) for end in (0, -1))
    missing = share * weights.sum() - first @ weights
    if missing < -1e-9 * weights.sum() or share * weights.sum() > last @ weights * (1 + 1e-9):
        raise ValueError(f"a mean fraction of {share:g} cannot be reached by blocks that lose from {first} to {last}")
    widths = [np.diff(x) for x, _ in hulls]
    slopes = [np.diff(y) / dx / size for (_, y), dx, size in zip(hulls, widths, weights, strict=True)]
    levels, level_of = np.unique(np.concatenate([*slopes, np.empty(0)]), return_inverse=True)
    mass = np.bincount(level_of, np.concatenate([dx * n for dx, n in zip(widths, weights, strict=True)]), len(levels))
    before = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    taken = np.clip((missing - before) / np.where(mass > 0, mass, 1), 0, 1)[level_of]
    starts = np.concatenate([[0], np.cumsum([len(dx) for dx in widths])])
    parts = [taken[start:stop] for start, stop in itertools.pairwise(starts)]
    return [float(low + dx @ part) for low, dx, part in zip(first, widths, parts, strict=True)]


def stretched(values: Sequence[float], low: float, high: float) -> Array:
    """Map values linearly, so that the least becomes ``low`` and the greatest ``high``; the middle if all are equal."""
    given = np.array(values, float)
    width = np.ptp(given)
    return low + (given - given.min()) * ((high - low) / width) if width else np.full(len(given), (low + high) / 2)


def settle(shares: Sequence[float], zeros: Callable[[int, float], int], target: int) -> list[float]:
    """Shift all shares by the same small amount until counts, which are rounded down, add up to ``target`` weights.

    ``zeros(block, share)`` is how many weights are zeroed; it never falls with the share. The sum never exceeds
    ``target``, and is less only where the next block would add too many at once.
    """

    def moved(shift: float) -> list[float]:
        return [min(1.0, max(0.0, share + shift)) for share in shares]

    def total(given: Sequence[float]) -> int:
        return sum(zeros(block, share) for block, share in enumerate(given))

    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if total(moved(middle)) <= target else (low, middle)
    settled, more = moved(low), moved(high)
    room = target - total(settled)
    for block, share in enumerate(more):
        added = zeros(block, share) - zeros(block, settled[block])
        if 0 < added <= room:
            settled[block], room = share, room - added
    return settled
