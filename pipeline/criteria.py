"""Criteria at equal budget: what two ways to choose the same number of units keep, and the difference, item by item.

Random criteria come in several draws. Their mean is compared, and an interval allows for the draws as for the items.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student

from pipeline.comparison import MEAN
from pipeline.figures.tables import Tables
from pipeline.figures.variants import DENSE, VARIANT, Variant, precedence
from pipeline.intervals import LEVEL, RESAMPLES, Z, percentiles

REFERENCE = "divergence"
COLUMNS = [
    "kind", "unit", "sparsity", "criterion", "pruner", "draws", "tasks", "n", "kept", "kept_low", "kept_high",
    "against", "difference", "low", "high",
]  # fmt: skip
Scores = Mapping[str, np.ndarray]
# Items of a task that did not occur, for a model to be right or wrong at.
UNSEEN = 4


def criteria(tables: Tables) -> pd.DataFrame:
    """What every criterion keeps of the dense mean score above chance, and what those by divergence keep beyond others.

    Args:
        tables: ``items``, ``scores`` and ``jobs`` of one choice of settings, see `pipeline.figures.tables`.

    Returns:
        `COLUMNS`: a row for every criterion (a pruner with its options, see `Variant.line`) at every unit and
        sparsity where there are several (``against`` is empty then), and one for each pair of a criterion by
        divergence and another one: ``difference`` is how much more of the dense score the first keeps, with its 95 %
        interval. Means are over the tasks that all of them have and that the dense model solves clearly above
        chance. Where there are several seeds, the newest job's counts: the items of one are not those of another.
    """
    parts = []
    for kind, items in of_one_seed(tables.items).groupby("kind") if not tables.items.empty else ():
        told = items.assign(
            family=[Variant(*row).line for row in items[VARIANT].itertuples(index=False)],
            unit=items["pruner"].map({p: tables.unit(p) for p in set(items["pruner"])}),
        )
        chance = _above_chance(tables.comparisons, str(kind))
        dense = next(iter(_vectors(told[told["pruner"] == DENSE]).values()), {})
        for (unit, sparsity), own in told[told["pruner"] != DENSE].groupby(["unit", "sparsity"]):
            draws = {family: list(_vectors(rows).values()) for family, rows in own.groupby("family") if len(rows)}
            names = dict(zip(own["family"], own["pruner"], strict=True))
            rows = _budget(draws, dense, chance, zlib.crc32(f"{kind}/{unit}/{sparsity}".encode()))
            about = {"kind": kind, "unit": unit, "sparsity": sparsity}
            parts += [about | {"pruner": names[str(row["criterion"])]} | row for row in rows]
    return pd.DataFrame(parts, columns=COLUMNS)


def of_one_seed(items: pd.DataFrame) -> pd.DataFrame:
    """Return the rows under the seed of the job that was started last."""
    newest = items.sort_values("started", kind="stable")["seed"].iloc[-1]
    return items[items["seed"] == newest]


def _above_chance(comparisons: pd.DataFrame, kind: str) -> dict[str, float]:
    """The chance of every task of a kind that the dense model solves clearly above it."""
    if comparisons.empty:
        return {}
    own = comparisons[(comparisons["kind"] == kind) & (comparisons["task"] != MEAN)]
    own = own[own["dense_low"] > own["chance"]].drop_duplicates("task")
    return dict(zip(own["task"], own["chance"].astype(float), strict=True))


def _vectors(items: pd.DataFrame) -> dict[str, Scores]:
    """Scores of each job by task, in order of the items."""
    return {
        str(job): {
            str(task): own.sort_values("item")["score"].to_numpy(dtype=float) for task, own in rows.groupby("task")
        }
        for job, rows in items.groupby("job")
    }


def _budget(
    draws: Mapping[str, Sequence[Scores]], dense: Scores, chance: Mapping[str, float], seed: int
) -> list[dict[str, object]]:
    """Rows of the criteria at one budget; none if there is only one."""
    tasks = [
        task
        for task in sorted(chance)
        if task in dense
        and all(task in one and len(one[task]) == len(dense[task]) for each in draws.values() for one in each)
    ]
    if len(draws) < 2 or not tasks:
        return []
    offset = sum(chance[task] for task in tasks) / len(tasks)
    sampled = _Resampled(dense, tasks, offset, seed)
    kept = {family: sampled.kept(each) for family, each in draws.items()}
    about = {"tasks": len(tasks), "n": sum(len(dense[task]) for task in tasks)}
    rows: list[dict[str, object]] = []
    for family in sorted(draws, key=precedence):
        interval = percentiles(*kept[family])
        rows.append(
            about
            | {"criterion": family, "draws": len(draws[family]), "against": ""}
            | dict(zip(("kept", "kept_low", "kept_high"), interval, strict=True))
        )
    for family, other in itertools.product(sorted(draws), sorted(draws, key=precedence)):
        if REFERENCE in family and REFERENCE not in other:
            (value, resampled), (less, others) = kept[family], kept[other]
            interval = percentiles(value - less, resampled - others)
            rows.append(
                about
                | {"criterion": family, "draws": len(draws[family]), "against": other}
                | dict(zip(("difference", "low", "high"), interval, strict=True))
            )
    return rows


class _Resampled:
    """What is kept, under weights of the items that are the same for all models: a Bayesian bootstrap within tasks.

    As in `pipeline.intervals`, items that did not occur have a little weight, so that intervals do not collapse where
    all items agree: Z² of them over all tasks, each right or wrong for each model by chance.
    """

    def __init__(self, dense: Scores, tasks: Sequence[str], chance: float, seed: int) -> None:
        self._tasks, self._chance, self._generator = tasks, chance, np.random.default_rng(seed)
        self._added = Z**2 / len(tasks)
        self._weights = {task: self._shares(len(dense[task])) for task in tasks}
        self._dense = self._above(dense)

    def _shares(self, n: int) -> np.ndarray:
        """Weights (RESAMPLES, n + UNSEEN) of a task's items and of those that did not occur."""
        mass = np.concatenate([np.ones(n), np.full(UNSEEN, self._added / UNSEEN)])
        weights = self._generator.standard_gamma(mass, size=(RESAMPLES, n + UNSEEN))
        return weights / weights.sum(axis=1, keepdims=True)

    def _above(self, scores: Scores) -> tuple[float, np.ndarray]:
        """Mean score over tasks less chance: of the data, and of each resample."""
        value = float(np.mean([scores[task].mean() for task in self._tasks])) - self._chance
        return value, np.mean([self._means(task, scores[task]) for task in self._tasks], axis=0) - self._chance

    def _means(self, task: str, scores: np.ndarray) -> np.ndarray:
        """A task's mean of each resample, moved so that they scatter about the mean of the data."""
        n, weights = len(scores), self._weights[task]
        unseen = self._generator.integers(2, size=(RESAMPLES, UNSEEN))
        means = weights[:, :n] @ scores + (weights[:, n:] * unseen).sum(axis=1)
        expected = (n * scores.mean() + self._added / 2) / (n + self._added)
        return np.clip(means + scores.mean() - expected, 0.0, 1.0)

    def kept(self, draws: Sequence[Scores]) -> tuple[float, np.ndarray]:
        """The share of the dense score above chance, on average over draws; of the data and of each resample."""
        above = [self._above(scores) for scores in draws]
        value, resampled = float(np.mean([one for one, _ in above])), np.stack([many for _, many in above])
        count = len(draws)
        mean = resampled.mean(axis=0)
        if count > 1:
            chosen = self._generator.integers(count, size=(RESAMPLES, count))
            drawn = np.take_along_axis(resampled.T, chosen, axis=1).mean(axis=1)
            # Few draws vary less among themselves than the draws there could be, as in Student's interval.
            wider = math.sqrt(count / (count - 1)) * student.ppf((1 + LEVEL) / 2, count - 1) / Z
            mean = mean + wider * (drawn - mean)
        return value / self._dense[0], mean / self._dense[1]
