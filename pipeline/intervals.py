"""95 % intervals and tests of scores from 0 to 1: of one score, of paired differences, of means and of ratios."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
RESAMPLES = 2000
# Weight, in items, of each pair of scores (0, 0), (0, 1), (1, 0), (1, 1): Jeffreys' prior for items right or wrong.
PRIOR = 0.5
CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
_BISECTIONS = 60


class Interval(NamedTuple):
    """An estimate and the two ends of its interval, which need not be equally far from it."""

    value: float
    low: float
    high: float

    def shifted(self, by: float) -> Interval:
        return Interval(self.value + by, self.low + by, self.high + by)


def wilson(right: int, n: int) -> Interval:
    """The share of right items of ``n`` > 0, with the score interval of Wilson (1927)."""
    share, weight = right / n, Z**2 / n
    middle = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    # Exact at the ends, where rounding would leave the share outside its interval.
    return Interval(share, 0.0 if right == 0 else middle - half, 1.0 if right == n else middle + half)


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of McNemar (1947): are items gained as likely as items lost? 1 if there are neither."""
    changed, fewer = gained + lost, min(gained, lost)
    term, total = 1, 0
    for count in range(fewer + 1):
        total += term
        term = term * (changed - count) // (count + 1)
    return min(1.0, 2 * total / 2**changed)


def tango(gained: int, lost: int, n: int) -> Interval:
    """The difference of two paired shares of ``n`` > 0 items, with the score interval of Tango (1998).

    It is the set of differences that the score test does not reject; without any changed item it still has a width.
    """
    difference = (gained - lost) / n

    def statistic(delta: float) -> float:
        """The score statistic of a true difference ``delta``: falling, zero at the estimate."""
        b = (2 * n - gained + lost) * delta - gained - lost
        root = math.sqrt(max(0.0, b**2 + 8 * n * lost * delta * (1 - delta)))
        variance = n * ((root - b) / (2 * n) + delta * (1 - delta))
        away = gained - lost - n * delta
        return away / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, away) if away else 0.0

    low = _crossing(statistic, Z, -1.0, difference) if difference > -1 else -1.0
    high = _crossing(statistic, -Z, difference, 1.0) if difference < 1 else 1.0
    return Interval(difference, low, high)


def _crossing(falling: Callable[[float], float], level: float, low: float, high: float) -> float:
    """Where a falling function passes ``level`` between ``low`` and ``high``, by bisection."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return (low + high) / 2


def resample(
    dense: np.ndarray, pruned: np.ndarray, generator: np.random.Generator
) -> tuple[Interval, Interval, Interval]:
    """Means of (n,) paired scores and their difference, pruned minus dense, with bootstrap percentile intervals.

    Items are weighted at random as in the Bayesian bootstrap (Rubin 1981) instead of drawn (Efron 1979), which allows
    for a little weight (`PRIOR`) on pairs of scores that did not occur: intervals do not collapse where all items
    agree. Resampled means are moved so that they scatter about the mean of the data.
    """
    pairs = np.column_stack([dense, pruned])
    # Equal pairs can share one weight, whose distribution depends on how many they are.
    unique, place = np.unique(np.vstack([pairs, CORNERS]), axis=0, return_inverse=True)
    shares = np.concatenate([np.ones(len(pairs)), np.full(len(CORNERS), PRIOR)])
    weights = generator.standard_gamma(np.bincount(place.ravel(), shares), size=(RESAMPLES, len(unique)))
    resampled = weights @ unique / weights.sum(axis=1, keepdims=True)
    expected = shares @ np.vstack([pairs, CORNERS]) / shares.sum()
    resampled += pairs.mean(axis=0) - expected
    x, y = np.clip(resampled, 0.0, 1.0).T
    return (
        percentiles(float(dense.mean()), x),
        percentiles(float(pruned.mean()), y),
        percentiles(float(pruned.mean() - dense.mean()), np.clip(resampled[:, 1] - resampled[:, 0], -1.0, 1.0)),
    )


def percentiles(value: float, resampled: np.ndarray) -> Interval:
    """A value with the middle 95 % of its resampled ones, which holds the value itself."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))


def sign_flip_p(differences: np.ndarray, generator: np.random.Generator) -> float:
    """The two-sided p of the mean of (n,) paired differences whose signs are equally likely (Fisher 1935)."""
    changed = differences[differences != 0]
    observed = abs(changed.sum())
    signs = generator.integers(0, 2, size=(RESAMPLES, len(changed)), dtype=np.int8) * 2.0 - 1.0
    # A hair of room: sums of the same numbers in another order may differ by rounding.
    at_least = np.abs(signs @ changed) >= observed * (1 - 1e-9)
    return float((1 + at_least.sum()) / (1 + RESAMPLES))


def normal_p(difference: Interval) -> float:
    """The two-sided p of no difference that fits an interval: below 0.05 exactly where the interval excludes 0."""
    towards = difference.high - difference.value if difference.value < 0 else difference.value - difference.low
    if difference.value == 0 or towards <= 0:
        return 1.0 if difference.value == 0 else 0.0
    return 2 * NormalDist().cdf(-Z * abs(difference.value) / towards)


def stratified(means: ArrayLike, deviations: ArrayLike, counts: ArrayLike, scale: tuple[float, float]) -> Interval:
    """The mean over K tasks of their means, every task counting alike, with items drawn within tasks.

    As Agresti and Min (2005) do for one task, Z² items that did not occur are added, half of them at either end of the
    scale, here over all tasks together: the interval does not collapse where all items agree. For tasks of equal size
    all of whose items agree it is that of Wilson (1927), or Tango (1998), of all items together.

    Args:
        means, deviations: (K,) of each task's items; deviations are those of the items themselves (no n - 1).
        counts: (K,) of items.
        scale: the least and the greatest score there may be; the interval stays inside.
    """
    value, deviation, n = (np.asarray(part, dtype=float) for part in (means, deviations, counts))
    added = Z**2 / len(value)
    low, high = scale
    middle = (n * value + added * (low + high) / 2) / (n + added)
    squares = (n * (deviation**2 + value**2) + added * (low**2 + high**2) / 2) / (n + added)
    half = Z * math.sqrt(float(np.sum((squares - middle**2) / (n + added)))) / len(value)
    mean = float(value.mean())
    return Interval(mean, max(low, mean - half), min(high, mean + half))


def fieller(numerator: Interval, denominator: Interval, difference: Interval) -> Interval:
    """The ratio of two dependent estimates with the interval of Fieller (1954).

    Args:
        numerator, denominator: the two estimates; ``denominator.low`` has to be above 0 for a bounded interval.
        difference: numerator minus denominator, whose interval tells how the two depend on each other.

    Returns:
        The ratio; its interval excludes 1 exactly where that of the difference excludes 0. All three are missing
        where the denominator's interval includes 0.
    """
    if denominator.low <= 0:
        return Interval(math.nan, math.nan, math.nan)
    ratio = numerator.value / denominator.value
    ends = []
    for sign in (-1, 1):
        # The lower limit comes from a low numerator over a high denominator, and the upper one the other way round.
        above, below = (numerator.low, denominator.high) if sign < 0 else (numerator.high, denominator.low)
        apart = difference.low if sign < 0 else difference.high
        spread = (above - numerator.value) ** 2, (below - denominator.value) ** 2, (apart - difference.value) ** 2
        ends.append(_fieller_end(numerator.value, denominator.value, *spread, sign))
    return Interval(ratio, min(ends[0], ratio), max(ends[1], ratio))


def _fieller_end(x: float, y: float, of_x: float, of_y: float, of_difference: float, sign: int) -> float:
    """One end of the ratio x / y from the squared half-widths of x, y and x - y: a root of (x - Ry)² = width(R)²."""
    shared = (of_x + of_y - of_difference) / 2
    a, b, c = y**2 - of_y, x * y - shared, x**2 - of_x
    root = math.sqrt(max(0.0, b**2 - a * c))
    if sign < 0 and b > 0:
        # The same root in a form that stays finite where the denominator may be twice as large.
        return c / (b + root)
    return (b + sign * root) / a if a > 0 else sign * math.inf
