"""Criteria at equal budget: what two ways of choosing the same number of units retain, compared item by item.

Random criteria come in several draws. Their mean is compared, and intervals account for the draws and the items.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.evaluate.comparison import MEAN, paired
from pipeline.evaluate.intervals import (
    DIFFERENCES,
    SCORES,
    Interval,
    fieller,
    half_width_of_mean,
    mean_score,
    stratified,
    student,
)
from pipeline.tables.read import Tables
from pipeline.tables.replicates import mean_interval
from pipeline.tables.variants import DENSE, VARIANT, Variant, precedence

REFERENCE = "divergence"
COLUMNS = [
    "kind", "unit", "sparsity", "criterion", "pruner", "draws", "seeds", "tasks", "n", "kept", "kept_low", "kept_high",
    "against", "difference", "low", "high",
]  # fmt: skip
_KEPT, _MORE = ("kept", "kept_low", "kept_high"), ("difference", "low", "high")
# Least and greatest value of x - y - d for the scores of three models.
_CONTRASTS = (-2.0, 1.0)
Scores = Mapping[str, np.ndarray]


def criteria(tables: Tables) -> pd.DataFrame:
    """Estimate what every criterion retains of the dense mean score above chance, and how much more divergence does.

    Args:
        tables: ``items``, ``scores`` and ``jobs`` of one choice of settings, see `pipeline.tables.read`.

    Returns:
        `COLUMNS`: one row for every criterion (a pruner with its options, see `Variant.line`) at every unit and
        sparsity that has several (``against`` is empty), and one for each pair of a criterion by divergence and
        another one: ``difference`` is how much more of the dense score the first retains, with its 95 % interval.
        Means are over the tasks that all criteria have and that the dense model solves clearly above chance. Each
        seed is compared with its own dense job, since items may differ between seeds; the results are means over the
        seeds that have all criteria.
    """
    parts = []
    for kind, items in tables.items.groupby("kind") if not tables.items.empty else ():
        told = items.assign(
            family=[Variant(*row).line for row in items[VARIANT].itertuples(index=False)],
            unit=items["pruner"].map({p: tables.unit(p) for p in set(items["pruner"])}),
        )
        chance = _above_chance(tables.comparisons, str(kind))
        dense = {seed: next(iter(_vectors(own).values())) for seed, own in _dense_by_seed(told)}
        for (unit, sparsity), own in told[told["pruner"] != DENSE].groupby(["unit", "sparsity"]):
            names = dict(zip(own["family"], own["pruner"], strict=True))
            about = {"kind": kind, "unit": unit, "sparsity": sparsity}
            parts += [about | {"pruner": names[str(row["criterion"])]} | row for row in _budget(own, dense, chance)]
    return pd.DataFrame(parts, columns=COLUMNS)


def _dense_by_seed(items: pd.DataFrame) -> Iterable[tuple[int, pd.DataFrame]]:
    return items[items["pruner"] == DENSE].groupby("seed")


def _above_chance(comparisons: pd.DataFrame, kind: str) -> dict[str, float]:
    """Return the chance level of every task of a kind that the dense model solves clearly above it."""
    if comparisons.empty:
        return {}
    own = comparisons[(comparisons["kind"] == kind) & (comparisons["task"] != MEAN)]
    own = own[own["dense_low"] > own["chance"]].drop_duplicates("task")
    return dict(zip(own["task"], own["chance"].astype(float), strict=True))


def _vectors(items: pd.DataFrame) -> dict[str, Scores]:
    """Return the scores of each job by task, in the order of the items."""
    return {
        str(job): {
            str(task): own.sort_values("item")["score"].to_numpy(dtype=float) for task, own in rows.groupby("task")
        }
        for job, rows in items.groupby("job")
    }


def _budget(items: pd.DataFrame, dense: Mapping[int, Scores], chance: Mapping[str, float]) -> list[dict[str, object]]:
    """Return the rows of the criteria at one budget, over the seeds that have all of them; none for a single one."""
    families = sorted(set(items["family"]), key=precedence)
    by_seed = {
        seed: {str(family): list(_vectors(rows).values()) for family, rows in own.groupby("family")}
        for seed, own in items.groupby("seed")
        if seed in dense
    }
    compared = {seed: draws for seed, draws in by_seed.items() if len(draws) == len(families)}
    asked = [
        {task for task in chance if _asked(task, [dense[seed], *itertools.chain(*draws.values())])}
        for seed, draws in compared.items()
    ]
    tasks = sorted(set.intersection(*asked)) if asked else []
    if len(families) < 2 or not tasks:
        return []
    offset = sum(chance[task] for task in tasks) / len(tasks)
    seeds = [_OneSeed(dense[seed], draws, tasks, offset) for seed, draws in compared.items()]
    about = {"seeds": len(seeds), "tasks": len(tasks), "n": sum(one.n for one in seeds)}
    counts = {family: sum(len(draws[family]) for draws in compared.values()) for family in families}
    rows: list[dict[str, object]] = []
    for family in families:
        kept = dict(zip(_KEPT, _mean([one.kept(family) for one in seeds]), strict=True))
        rows.append(about | {"criterion": family, "draws": counts[family], "against": ""} | kept)
    for family, other in itertools.product(sorted(families), families):
        if REFERENCE in family and REFERENCE not in other:
            more = dict(zip(_MORE, _mean([one.more(family, other) for one in seeds]), strict=True))
            rows.append(about | {"criterion": family, "draws": counts[family], "against": other} | more)
    return rows


def _asked(task: str, models: Sequence[Scores]) -> bool:
    """Return whether all models were evaluated on the same number of items of a task."""
    return len({len(scores.get(task, ())) for scores in models}) == 1


def _mean(intervals: Sequence[Interval]) -> Interval:
    return intervals[0] if len(intervals) == 1 else mean_interval(np.array(intervals))


class _OneSeed:
    """Fractions of the dense score above chance that criteria retain under one seed, with items drawn within tasks."""

    def __init__(
        self, dense: Scores, draws: Mapping[str, Sequence[Scores]], tasks: Sequence[str], chance: float
    ) -> None:
        self._tasks, self._chance = tasks, chance
        self._dense = [dense[task] for task in tasks]
        self._counts = [len(items) for items in self._dense]
        self._above = self._over_tasks([mean_score(items) for items in self._dense], SCORES).shifted(-chance)
        # The mean over draws of each item, and half the width of the interval of the mean score over draws.
        self._items = {
            family: [np.mean([one[task] for one in each], axis=0) for task in tasks] for family, each in draws.items()
        }
        self._drawn = {
            family: half_width_of_mean([float(np.mean([one[task].mean() for task in tasks])) for one in each])
            for family, each in draws.items()
        }

    @property
    def n(self) -> int:
        """Number of items of all tasks."""
        return sum(self._counts)

    def kept(self, family: str) -> Interval:
        """Estimate the fraction that a criterion retains, on average over its draws."""
        items, drawn = self._items[family], self._drawn[family]
        score = self._over_tasks([mean_score(own) for own in items], SCORES).shifted(-self._chance)
        less = [paired(d, own).difference for d, own in zip(self._dense, items, strict=True)]
        return fieller(_wider(score, drawn), self._above, _wider(self._over_tasks(less, DIFFERENCES), drawn))

    def more(self, family: str, other: str) -> Interval:
        """Estimate by how much the fraction that one criterion retains exceeds that of another."""
        first, second = self._items[family], self._items[other]
        if sum(own.mean() for own in first) < sum(own.mean() for own in second):
            less = self.more(other, family)
            return Interval(-less.value, -less.high, -less.low)
        drawn = math.hypot(self._drawn[family], self._drawn[other])
        parts = list(zip(self._dense, first, second, strict=True))
        gain = self._over_tasks([paired(y, x).difference for _, x, y in parts], DIFFERENCES)
        short = self._over_tasks([student(x - y - d, _CONTRASTS) for d, x, y in parts], _CONTRASTS)
        return fieller(_wider(gain, drawn), self._above, _wider(short.shifted(self._chance), drawn))

    def _over_tasks(self, parts: Sequence[Interval], scale: tuple[float, float]) -> Interval:
        return parts[0] if len(parts) == 1 else stratified(parts, self._counts, scale)


def _wider(interval: Interval, by: float) -> Interval:
    """Return the interval, widened for an independent deviation with half-width ``by``."""
    value, low, high = interval
    return Interval(value, value - math.hypot(value - low, by), value + math.hypot(high - value, by))
