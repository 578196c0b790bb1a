"""The one rule that puts an interval into a word: kept, lost, or cannot be told; and more or less than another."""

from __future__ import annotations

from pipeline.evaluate.intervals import Interval

KEPT, LOST, UNDECIDED = "kept", "lost", "cannot be told"
MORE, LESS = "more", "less"
# Largest loss, on the scale of scores from 0 to 1, that still counts as kept: five points.
MARGIN = 0.05


def verdict(interval: Interval, limit: float) -> str:
    """Judge by its 95 % interval whether a value is at least ``limit``.

    - "kept": the whole interval is at or above the limit;
    - "lost": the whole interval is below it;
    - "cannot be told": the limit lies inside, or the interval is not known (NaN).

    For a difference of scores the limit is minus the margin, so that "kept" is a test of non-inferiority: a loss that
    is certain, but certainly within the margin, is kept.
    """
    if interval.low >= limit:
        return KEPT
    return LOST if interval.high < limit else UNDECIDED


def direction(interval: Interval) -> str:
    """Say whether a difference is there: "more", "less", or "cannot be told" if it may be 0 or is not known (NaN)."""
    if verdict(interval, 0.0) == LOST:
        return LESS
    return MORE if interval.low > 0 else UNDECIDED
