"""Bootstrap intervals over whole groups: positions of one prompt depend on each other, prompts do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit

# (values of shape (n,), their counts of shape (resamples, n)) -> statistics of shape (resamples,)
Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the mean of (n,) values for each row of (resamples, n) weights."""
    return weights @ values / weights.sum(axis=1)


def interval(
    values: ArrayLike,
    groups: ArrayLike | Any,
    statistic: Statistic = mean,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Estimate the percentile bootstrap interval of a statistic (Efron 1979), drawing whole groups with replacement.

    Resamples of few groups vary less than other groups would. Percentiles further out compensate for this: the
    interval of a mean is as wide as Student's (the expanded interval of Hesterberg 2015).

    Args:
        values: (n,) finite numbers.
        groups: (n,) the group of each value, such as its prompt.
        statistic: function of the values and their counts, each counted as often as its group was drawn.
        level: the fraction of such intervals that contain the true statistic.

    Returns:
        Its two ends, the same at every call; NaN if there are fewer than two groups to draw from.
    """
    names, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    share = np.full(len(names), 1 / len(names))
    draws = np.random.default_rng(seed).multinomial(len(names), share, size=resamples)
    resampled = statistic(np.asarray(values, dtype=float), draws[:, codes])
    low, high = np.quantile(resampled, expanded(len(names), level))
    return float(low), float(high)


def expanded(groups: int, level: float = 0.95) -> tuple[float, float]:
    """Return the two quantiles of resamples of ``groups`` > 1 groups that are as far apart as Student's interval."""
    tail = float(ndtr(-math.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, (1 + level) / 2)))
    return tail, 1 - tail
