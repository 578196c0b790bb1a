"""Means over cells with their variance: over items, and over whatever was drawn more than once, such as texts.

Degrees of freedom are Welch and Satterthwaite's. Several comparisons are corrected by Holm (1979), their intervals as
well as their p, so that an interval excludes 0 exactly where its corrected p is below 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from pipeline.evaluate.intervals import TAIL, Interval

# What is added to the quantile of a test, so that four of five repetitions tell what is there.
_POWER = float(ndtri(0.8))

Key = TypeVar("Key", bound=Hashable)


class Part(NamedTuple):
    """A variance and its degrees of freedom."""

    variance: float
    freedom: float


class Drawn(NamedTuple):
    """What was drawn anew: the variance ``between`` its draws (None for a single one), and the draws' ``share``.

    The variance of the mean over cells is the product: the share is the sum of the squared shares of single draws.
    """

    between: Part | None
    share: float


@dataclass(frozen=True)
class Estimate:
    """A mean over cells; its variance over items, and what was drawn, by name."""

    value: float
    over_items: Part
    drawn: Mapping[str, Drawn]

    @property
    def over_draws(self) -> list[Part]:
        """The parts of the variance that come from other draws."""
        return [
            Part(own.between.variance * own.share, own.between.freedom) for own in self.drawn.values() if own.between
        ]

    @property
    def error(self) -> float:
        return math.sqrt(sum(part.variance for part in (self.over_items, *self.over_draws)))

    @property
    def freedom(self) -> float:
        """Welch and Satterthwaite's degrees of freedom."""
        if math.isinf(self.error):
            return self.over_items.freedom
        spent = sum(part.variance**2 / part.freedom for part in (self.over_items, *self.over_draws))
        return self.error**4 / spent if spent else self.over_items.freedom

    def interval(self, tests: float = 1.0) -> Interval:
        """Return the 95 % interval; for one of several ``tests``, by Bonferroni's correction for so many."""
        half = self.error * self._quantile(tests)
        return Interval(self.value, self.value - half, self.value + half)

    def p(self) -> float:
        """Test whether the mean is 0: the two-sided p of Student's t."""
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))

    def items_to_tell(self, items: int, tests: float = 1.0) -> float:
        """Return how many items in place of ``items`` would tell this mean from 0 in four of five repetitions.

        It is infinite if draws forbid that.
        """
        reached = self.value / (self._quantile(tests) + _POWER)
        left = reached**2 - sum(part.variance for part in self.over_draws)
        wanted = items * self.over_items.variance / left if left > 0 else math.inf
        return math.ceil(wanted) if math.isfinite(wanted) else math.inf

    def _quantile(self, tests: float) -> float:
        return float(-stdtrit(self.freedom, (1 - TAIL) / tests))


def lend_draws(estimates: Mapping[Key, Estimate], names: Iterable[str]) -> dict[Key, Estimate]:
    """Give estimates that have one draw of what ``names`` say the mean variance between the draws of the others.

    One draw says nothing. Those with several keep their own variance: some criteria choose alike whatever they read,
    others do not. Since they differ, what is lent has the degrees of freedom of one of them, not of all together.
    Where none was drawn again, the variance stays unknown.
    """
    found = dict(estimates)
    for name in names:
        own = {key: one.drawn[name] for key, one in found.items() if name in one.drawn}
        known = [each.between for each in own.values() if each.between]
        pooled = pooled_variance(known)
        between = pooled and Part(pooled.variance, pooled.freedom / len(known))
        for key, each in own.items():
            if each.between is None:
                found[key] = replace(found[key], drawn={**found[key].drawn, name: Drawn(between, each.share)})
    return found


def pooled_variance(parts: Sequence[Part]) -> Part | None:
    """Return the mean of variances, weighted by their degrees of freedom; None of none."""
    freedom = sum(part.freedom for part in parts)
    return Part(sum(part.variance * part.freedom for part in parts) / freedom, freedom) if freedom else None


def holm_factors(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return what each p is multiplied by in Holm's (1979) step-down procedure; the product is cut at 1."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    steps, ascending = len(values) - np.arange(len(values)), values[order]
    reached = np.maximum.accumulate(steps * ascending)
    factors = np.empty_like(values)
    factors[order] = np.divide(reached, ascending, out=steps.astype(float), where=ascending > 0)
    return factors
