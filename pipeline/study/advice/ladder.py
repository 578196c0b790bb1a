"""Sparsities of one pruner in ascending order, and the search for the last that retains a share of the dense score.

Pure functions: nothing is run here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.evaluate.intervals import Interval
from pipeline.evaluate.verdict import KEPT, verdict

Setting = tuple[str, str]  # pruner, sparsity
Kept = Mapping[Setting, Mapping[str, Interval]]  # share retained of the dense score above chance, by kind of task

MOST_RUNGS = 8
# Sparsities for pruners of weights, and for units of a model whose number of blocks is unknown before loading.
WEIGHTS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7")
SHARES = ("0.03", "0.05", "0.08", "0.12", "0.17", "0.25", "0.35", "0.5")
# Teacher-forced KL in nats per token at which the first setting is measured, before anything can be predicted.
START = 0.3


class Rung(NamedTuple):
    """One sparsity of a pruner, with what is known of it.

    ``removed`` is the number of parameters it removes, ``divergence`` its teacher-forced KL. ``measured`` and
    ``predicted`` are the share retained of the dense score above chance, 1 for all of it, with an interval. ``tried``
    says that an evaluation was attempted, successful or not.
    """

    sparsity: str
    removed: int | None = None
    divergence: float | None = None
    measured: Interval | None = None
    predicted: Interval | None = None
    tried: bool = False

    @property
    def kept(self) -> Interval | None:
        """Measured share, else the predicted one, else None."""
        return self.measured if self.measured is not None else self.predicted


@dataclass(frozen=True)
class Threshold:
    """Limit of a pruner: the last rung that retains enough, or None, and the first beyond it that does not, or None."""

    last: Rung | None
    below: Rung | None


@dataclass(frozen=True)
class Recommended:
    """A pruner's rung that retains enough: by its whole interval if ``sure``, else by its value alone."""

    pruner: str
    rung: Rung
    sure: bool


def unit_counts(total: int) -> list[str]:
    """Return at most `MOST_RUNGS` numbers of units from 1 to half of ``total``, closest at the low end."""
    half = max(1, total // 2)
    spaced = (math.exp(math.log(half) * step / (MOST_RUNGS - 1)) for step in range(MOST_RUNGS))
    return [str(count) for count in sorted({round(count) for count in spaced})]


def bracket(rungs: Sequence[Rung], keep: float) -> tuple[int, int]:
    """Return the places of the last rung measured to retain enough (-1: the dense model) and the first measured not to.

    A rung that retains enough beyond one that does not is luck, and does not count.
    """
    lost = next((place for place, rung in enumerate(rungs) if _falls(rung.measured, keep)), len(rungs))
    kept = [place for place in range(lost) if _keeps(rungs[place].measured, keep)]
    return max(kept, default=-1), lost


def next_to_measure(rungs: Sequence[Rung], keep: float, most: int) -> int | None:
    """Return the place of the rung whose measurement says most about the threshold; None if that is found.

    Returns None, too, once ``most`` rungs were tried. Predictions lead to both sides of the predicted threshold;
    without them the rung whose divergence is nearest to `START` comes first, then the middle of the remaining ones.
    """
    last, lost = bracket(rungs, keep)
    inside = [place for place in range(last + 1, lost) if not rungs[place].tried]
    if not inside or sum(rung.tried for rung in rungs) >= most:
        return None
    if all(rungs[place].predicted is not None for place in inside):
        return max((place for place in inside if _keeps(rungs[place].predicted, keep)), default=inside[0])
    if not any(rung.tried for rung in rungs):
        known = {place: value for place in inside if (value := rungs[place].divergence) is not None and value > 0}
        if known:
            return min(known, key=lambda place: abs(math.log(known[place] / START)))
    return inside[len(inside) // 2]


def threshold(rungs: Sequence[Rung], keep: float) -> Threshold:
    """Find the threshold: up from the last rung measured to retain enough, as far as predictions do without a gap."""
    last, _ = bracket(rungs, keep)
    while last + 1 < len(rungs) and _keeps(rungs[last + 1].kept, keep):
        last += 1
    below = next((rung for rung in rungs[last + 1 :] if _falls(rung.kept, keep)), None)
    return Threshold(rungs[last] if last >= 0 else None, below)


def recommend(ladders: Mapping[str, Sequence[Rung]], keep: float) -> Recommended | None:
    """Return the rung that removes most parameters while its whole interval, or else its value, retains enough.

    Returns None if not even the smallest rung of any pruner retains enough. A measured rung wins a tie.
    """
    found = [Recommended(pruner, rung, sure) for pruner, rungs in ladders.items() for rung, sure in _safe(rungs, keep)]

    def rank(one: Recommended) -> tuple[bool, int, bool]:
        return one.sure, one.rung.removed or 0, one.rung.measured is not None

    return max(found, key=rank, default=None)


def _safe(rungs: Sequence[Rung], keep: float) -> list[tuple[Rung, bool]]:
    """Return the rungs up to the threshold whose value retains enough, and whether their whole interval does."""
    last = threshold(rungs, keep).last
    upto = rungs[: rungs.index(last) + 1] if last is not None else ()
    return [
        (rung, verdict(rung.kept, keep) == KEPT)
        for rung in upto
        if rung.kept is not None and rung.removed is not None and rung.kept.value >= keep
    ]


def _keeps(interval: Interval | None, keep: float) -> bool:
    return interval is not None and interval.value >= keep


def _falls(interval: Interval | None, keep: float) -> bool:
    return interval is not None and interval.value < keep
