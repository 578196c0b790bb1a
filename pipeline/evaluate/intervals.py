"""95 % intervals and tests of scores from 0 to 1: of one score, of paired differences, of means and of ratios.

A difference's interval and its p come from the same test: p is below 0.05 exactly where the interval excludes 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtr, stdtrit

LEVEL = 0.95
TAIL = (1 + LEVEL) / 2
Z = float(ndtri(TAIL))
# Smallest and largest possible value.
SCORES, DIFFERENCES = (0.0, 1.0), (-1.0, 1.0)
# A single observed deviation is assumed to be at least this share of the largest possible one.
SEEN = 0.2
_TIE = 1e-9  # scores closer than this are equal up to rounding


class Interval(NamedTuple):
    """An estimate and the lower and upper end of its interval, which may be asymmetric."""

    value: float
    low: float
    high: float

    def shifted(self, by: float) -> Interval:
        return Interval(self.value + by, self.low + by, self.high + by)


def mean_score(scores: np.ndarray) -> Interval:
    """Estimate the mean of (n,) scores from 0 to 1: `wilson` if all are 0 or 1, else `student`."""
    if binary(scores):
        return wilson(int(scores.sum()), len(scores))
    return student(scores, SCORES)


def binary(scores: np.ndarray) -> bool:
    """Return whether every score is 0 or 1."""
    return bool(np.isin(scores, (0, 1)).all())


def wilson(right: float, n: float) -> Interval:
    """Estimate the share of right items of ``n`` > 0, with the score interval of Wilson (1927)."""
    # As scipy's `binomtest` computes it, whose module takes half a second to import.
    share, scale = right / n, 2 * (n + Z**2)
    middle, half = (2 * n * share + Z**2) / scale, Z / scale * math.sqrt(4 * n * share * (1 - share) + Z**2)
    return Interval(share, middle - half if right else 0.0, middle + half if right < n else 1.0)


def mcnemar_p(gained: int, lost: int) -> float:
    """Test whether items are gained as often as lost: McNemar's (1947) two-sided p, with Edwards' (1948) correction.

    For any number of items and of changed items (checked up to 500), a true null hypothesis is rejected at 0.05 in at
    most 5 % of cases; without the correction of one item, in up to 12.5 %.
    """
    changed = gained + lost
    return float(2 * ndtr(-max(abs(gained - lost) - 1, 0) / math.sqrt(changed))) if changed else 1.0


def tango(gained: int, lost: int, n: int) -> Interval:
    """Estimate the difference of two paired shares of ``n`` > 0 items, with the corrected interval of Tango (1998).

    The interval holds the differences that the score test does not reject. For the difference 0 that test is
    `mcnemar_p` with its correction of one item; for others the correction is the share of changed items that cancel
    each other. Without any change the ends are therefore Tango's, Z² / (n + Z²) from 0.
    """
    return Interval((gained - lost) / n, 0.0 - _greatest(lost, gained, n), _greatest(gained, lost, n))


def _greatest(gained: int, lost: int, n: int) -> float:
    """Find the largest difference that the corrected score test does not reject."""
    # Deferred: its module takes half a second to import, and readers of results do not need it.
    from scipy.optimize import brentq

    difference = (gained - lost) / n

    def excess(delta: float) -> float:
        """Return by how many items a true difference ``delta`` exceeds what the test allows; above 0 if rejected."""
        b = (2 * n - gained + lost) * delta - gained - lost
        root = math.sqrt(max(0.0, b**2 + 8 * n * lost * delta * (1 - delta)))
        # Maximum-likelihood share of changed items, given the difference.
        changed = max((root - b) / (2 * n) + delta, abs(delta))
        cancelled = 1 - abs(delta) / changed if changed > 0 else 1.0
        return n * (delta - difference) - cancelled - Z * math.sqrt(n * max(0.0, changed - delta**2))

    if difference == 1:
        return 1.0
    rejected = excess(0.0) > 0
    start = difference if rejected else max(difference, 0.0)
    # At exactly -1 the variance is 0, and so is the excess.
    return float(brentq(excess, max(start, _TIE - 1), 0.0 if rejected else 1.0))


def student(values: np.ndarray, scale: tuple[float, float]) -> Interval:
    """Estimate the mean of (n,) graded scores or differences, with Student's t interval and room for unseen items.

    Tied items say little about how far another item may deviate. The squared half-width is therefore the sum of the
    square of Student's and the square of Z² / (n + Z²) (Wilson's and Tango's half-width where all items agree) times
    the possible distance of items, weighted by the share of ties. Without ties, the interval is Student's alone.

    Args:
        values: (n,), n > 0.
        scale: smallest and largest possible value, (0, 1) or (-1, 1); the interval stays inside.
    """
    value, half = float(np.mean(values)), _half_width(values, scale)
    return Interval(value, max(scale[0], value - half), min(scale[1], value + half))


def student_p(differences: np.ndarray) -> float:
    """Test whether the mean of (n,) differences is 0: the two-sided p of Student's t for the width of `student`."""
    n, value, half = len(differences), float(np.mean(differences)), _half_width(differences, DIFFERENCES)
    return float(2 * stdtr(n - 1, -abs(value) / half * stdtrit(n - 1, TAIL))) if n > 1 else 1.0


def _half_width(values: np.ndarray, scale: tuple[float, float]) -> float:
    n = len(values)
    if n < 2:
        return math.inf
    sampled = float(stdtrit(n - 1, TAIL)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return math.hypot(sampled, room_for_unseen(values, scale))


def room_for_unseen(values: np.ndarray, scale: tuple[float, float]) -> float:
    """Return the part of the half-width of `student` that comes from items which are not among (n,) values, n > 1."""
    n, value = len(values), float(np.mean(values))
    deviation = float(np.std(values, ddof=1))
    ends = np.flatnonzero(np.diff(np.sort(values)) > _TIE) + 1
    sizes = np.diff(ends, prepend=0, append=n)
    pairs = float(sizes @ (sizes - 1)) / (n * (n - 1))
    tied = math.sqrt(pairs)
    # Root mean square distance of items that are not tied. Another item may also change in the opposite direction.
    apart = math.sqrt(2 * deviation**2 / (1 - pairs)) if pairs < 1 else 0.0
    apart = max(apart, 2 * abs(value)) if scale[0] < 0 else apart
    farthest = max(value - scale[0], scale[1] - value)
    # Few untied items show less than the possible distance; if all are tied, all n count.
    unlike = n * (1 - tied) if pairs < 1 else n
    reach = min(farthest, apart / SEEN ** (1 / unlike)) if apart > _TIE else farthest
    return Z**2 / (n + Z**2) * reach * math.sqrt(tied)


def half_width_of_mean(values: Sequence[float]) -> float:
    """Return the half-width of Student's interval of the mean of (k,) values; 0 for one value, which has no spread."""
    k = len(values)
    return float(stdtrit(k - 1, TAIL) * np.std(values, ddof=1) / math.sqrt(k)) if k > 1 else 0.0


def stratified(parts: Sequence[Interval], counts: ArrayLike, scale: tuple[float, float]) -> Interval:
    """Estimate the mean of K task means, with equal weights and items sampled within tasks.

    Variances are recovered from the tasks' own intervals (MOVER: Zou and Donner 2008), which combines scores of all
    kinds and does not collapse where all items agree. Each variance is the mean square of an interval's two sides:
    either side alone is too short where many small tasks score near the end of the scale. Score intervals are shifted
    towards the middle, as if there were Z² more items, which is undone. Coverage is 94 % or more, and close to 100 %
    with few items per task.

    Args:
        parts: the tasks' means with their intervals.
        counts: (K,) numbers of items.
        scale: smallest and largest possible score; the interval stays inside.
    """
    value, low, high = np.array(parts, dtype=float).T
    squares = ((value - low) ** 2 + (high - value) ** 2) / 2 * (1 + Z**2 / np.asarray(counts, dtype=float))
    mean, half = float(value.mean()), math.sqrt(float(squares.sum())) / len(value)
    return Interval(mean, max(scale[0], mean - half), min(scale[1], mean + half))


def normal_p(difference: Interval) -> float:
    """Return the two-sided p of no difference that matches an interval: below 0.05 exactly where it excludes 0."""
    towards = difference.high - difference.value if difference.value < 0 else difference.value - difference.low
    if difference.value == 0 or towards <= 0:
        return 1.0 if difference.value == 0 else 0.0
    return float(2 * ndtr(-Z * abs(difference.value) / towards))


def fieller(numerator: Interval, denominator: Interval, difference: Interval) -> Interval:
    """Estimate the ratio of two dependent estimates, with the interval of Fieller (1954).

    Args:
        numerator, denominator: the two estimates; ``denominator.low`` must be above 0 for a bounded interval.
        difference: numerator minus denominator, whose interval determines the covariance of the two.

    Returns:
        The ratio; its interval excludes 1 exactly where that of the difference excludes 0, and stays within the ratios
        of the limits. All three are NaN where the denominator's interval includes 0.
    """
    if denominator.low <= 0:
        return Interval(math.nan, math.nan, math.nan)
    ratio = numerator.value / denominator.value
    low, high = (_fieller_end(numerator, denominator, difference, sign) for sign in (-1, 1))
    # The intervals of differences and of scores are computed separately and may disagree slightly.
    low = max(low, numerator.low / (denominator.high if numerator.low > 0 else denominator.low))
    high = min(high, numerator.high / (denominator.low if numerator.high > 0 else denominator.high))
    # Rounding alone decides on which side of 1 a limit lies that differs from it in the last digits.
    above, below = math.nextafter(1, 2), math.nextafter(1, 0)
    low = min(low, 1.0) if difference.low <= 0 else max(low, above)
    high = max(high, 1.0) if difference.high >= 0 else min(high, below)
    ratio = max(ratio, above) if difference.low > 0 else min(ratio, below) if difference.high < 0 else ratio
    return Interval(ratio, min(low, ratio), max(high, ratio))


def _fieller_end(numerator: Interval, denominator: Interval, difference: Interval, sign: int) -> float:
    """Return the lower (``sign`` -1) or upper (1) end of the ratio R of x and y: a root of (x - Ry)² = width(R)²."""
    x, y = numerator.value, denominator.value
    # The lower limit comes from a low numerator over a high denominator, and the upper one the other way round.
    ends = (numerator.low, denominator.high, difference.low)
    if sign > 0:
        ends = (numerator.high, denominator.low, difference.high)
    of_x, of_y, of_difference = (
        (end - part.value) ** 2 for end, part in zip(ends, (numerator, denominator, difference), strict=True)
    )
    shared = (of_x + of_y - of_difference) / 2
    a, b, c = y**2 - of_y, x * y - shared, x**2 - of_x
    root = math.sqrt(max(0.0, b**2 - a * c))
    if sign < 0 and b > 0:
        # The same root in a form that stays finite where the denominator's upper limit is twice its value (a = 0).
        return c / (b + root)
    return (b + sign * root) / a if a > 0 else sign * math.inf
