"""The sparsities of one pruner from least to most, and where on them a share of the dense score is still kept.

Pure functions: nothing is run here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.evaluate.intervals import Interval

Setting = tuple[str, str]  # pruner, sparsity
Kept = Mapping[Setting, Mapping[str, Interval]]  # what is kept of the dense score above chance, by kind of task

MOST_RUNGS = 8
# For pruners of weights, and for units of a model whose number of blocks is not known without loading it.
WEIGHTS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7")
SHARES = ("0.03", "0.05", "0.08", "0.12", "0.17", "0.25", "0.35", "0.5")
# Teacher-forced KL in nats a token at which the first setting is measured, before anything can be predicted.
START = 0.3


class Rung(NamedTuple):
    """One sparsity of a pruner, as far as it is known.

    ``removed`` are the parameters it takes away, ``divergence`` its teacher-forced KL. ``measured`` and ``predicted``
    are what is kept of the dense score above chance, 1 for all of it, with an interval. ``tried`` says that it was
    evaluated, whether or not something came of it.
    """

    sparsity: str
    removed: int | None = None
    divergence: float | None = None
    measured: Interval | None = None
    predicted: Interval | None = None
    tried: bool = False

    @property
    def kept(self) -> Interval | None:
        """What is known best."""
        return self.measured if self.measured is not None else self.predicted


@dataclass(frozen=True)
class Threshold:
    """How far a pruner can go: the last rung that keeps enough, or None, and the first beyond it that does not."""

    last: Rung | None
    below: Rung | None


@dataclass(frozen=True)
class Recommended:
    """A pruner's rung. ``sure`` if the whole interval is at least what should be kept, else the value alone is."""

    pruner: str
    rung: Rung
    sure: bool


def unit_counts(total: int) -> list[str]:
    """Numbers of units from 1 to half of ``total``, at most `MOST_RUNGS`, closest where the first ones are lost."""
    half = max(1, total // 2)
    spaced = (math.exp(math.log(half) * step / (MOST_RUNGS - 1)) for step in range(MOST_RUNGS))
    return [str(count) for count in sorted({round(count) for count in spaced})]


def bracket(rungs: Sequence[Rung], keep: float) -> tuple[int, int]:
    """Places of the last rung measured to keep enough (-1: the dense model) and the first measured not to.

    What keeps enough beyond one that does not is luck, and does not count.
    """
    lost = next((place for place, rung in enumerate(rungs) if _falls(rung.measured, keep)), len(rungs))
    kept = [place for place in range(lost) if _keeps(rungs[place].measured, keep)]
    return max(kept, default=-1), lost


def next_to_measure(rungs: Sequence[Rung], keep: float, most: int) -> int | None:
    """The place of the rung whose measurement tells most about where enough is kept; None if it is found.

    None, too, once ``most`` rungs were tried. Predictions lead to both sides of the predicted threshold; without them
    the rung whose divergence is nearest `START` comes first, then the middle of what is left.
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
    """From what was measured up as far as predictions keep enough without a break."""
    last, _ = bracket(rungs, keep)
    while last + 1 < len(rungs) and _keeps(rungs[last + 1].kept, keep):
        last += 1
    below = next((rung for rung in rungs[last + 1 :] if _falls(rung.kept, keep)), None)
    return Threshold(rungs[last] if last >= 0 else None, below)


def recommend(ladders: Mapping[str, Sequence[Rung]], keep: float) -> Recommended | None:
    """The rung that removes most parameters while its whole interval keeps enough, or else its value.

    None if not even the smallest rung of any pruner keeps enough. Of equal ones a measured one is taken.
    """
    found = [Recommended(pruner, rung, sure) for pruner, rungs in ladders.items() for rung, sure in _safe(rungs, keep)]

    def rank(one: Recommended) -> tuple[bool, int, bool]:
        return one.sure, one.rung.removed or 0, one.rung.measured is not None

    return max(found, key=rank, default=None)


def _safe(rungs: Sequence[Rung], keep: float) -> list[tuple[Rung, bool]]:
    """The rungs up to the threshold whose value keeps enough, and whether all of their interval does."""
    last = threshold(rungs, keep).last
    upto = rungs[: rungs.index(last) + 1] if last is not None else ()
    return [
        (rung, rung.kept.low >= keep)
        for rung in upto
        if rung.kept is not None and rung.removed is not None and rung.kept.value >= keep
    ]


def _keeps(interval: Interval | None, keep: float) -> bool:
    return interval is not None and interval.value >= keep


def _falls(interval: Interval | None, keep: float) -> bool:
    return interval is not None and interval.value < keep
