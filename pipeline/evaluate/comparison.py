"""Scores of a pruned model against the dense model on the same items: differences, what is retained, and verdicts.

Every interval covers 95 %. One pair of models is compared task by task (`compare`), and tasks of a kind are summed up
from their rows alone (`pool`), so that tasks of several suites can be put together later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.evaluate.intervals import (
    DIFFERENCES,
    SCORES,
    Interval,
    binary,
    fieller,
    mcnemar_p,
    mean_score,
    normal_p,
    stratified,
    student,
    student_p,
    tango,
    wilson,
)

# The largest difference, on the scale of scores from 0 to 1, that is still called no change: five points.
MARGIN = 0.05
MEAN = "mean"  # the task of rows that sum up a kind
MCNEMAR, STUDENT, STRATIFIED = "mcnemar", "student", "stratified"
LOWER, HIGHER, NO_CHANGE = "lower", "higher", "no change"
TOO_FEW, NO_SIGNAL = "too few items", "no signal"
VERDICTS = (LOWER, HIGHER, NO_CHANGE, TOO_FEW, NO_SIGNAL)
COLUMNS = [
    "task",
    "kind",
    "metric",
    "n",
    "dense",
    "dense_low",
    "dense_high",
    "pruned",
    "pruned_low",
    "pruned_high",
    "difference",
    "low",
    "high",
    "p",
    "method",
    "chance",
    "retained",
    "retained_low",
    "retained_high",
    "verdict",
]


@dataclass(frozen=True)
class Paired:
    """Scores of both models and their difference (pruned minus dense), each with its interval.

    ``p`` is that of the test which the difference's interval comes from: below 0.05 exactly where it excludes 0.
    ``best`` is the lower limit that a perfect score would have.
    """

    dense: Interval
    pruned: Interval
    difference: Interval
    p: float
    method: str
    best: float


def compare(
    dense_items: pd.DataFrame,
    pruned_items: pd.DataFrame,
    scores_dense: pd.DataFrame,
    scores_pruned: pd.DataFrame,
) -> pd.DataFrame:
    """Compare two models on the items that both were asked.

    Items that are right or wrong get McNemar's corrected test and the interval of Tango (1998) that fits it, others
    Student's paired t, see `pipeline.evaluate.intervals`. Kinds with items end in a row of the task "mean", see
    `pool`. Left out are main metrics that are not averaged and those without items between 0 and 1, such as
    perplexities: their ratio is in the scores.

    Args:
        dense_items, pruned_items: task, kind, item, score (0 to 1): the main metric of every item.
        scores_dense, scores_pruned: one row a task and metric: task, kind, metric, main, averaged, chance, data.

    Returns:
        `COLUMNS`. ``difference`` is pruned minus dense with its interval ``low`` to ``high``; ``retained`` is the
        share of the dense score above chance that is left, missing where dense is not clearly above chance, and its
        interval excludes 1 exactly where that of the difference excludes 0; ``p`` is below 0.05 exactly there;
        ``verdict`` is one of `VERDICTS`, see `verdict_of`.

    Raises:
        ValueError: if both models were not asked the same items.
    """
    dense, pruned = _main(scores_dense), _main(scores_pruned)
    keys = sorted(set(dense.index) | set(pruned.index))
    groups = [dict(list(items.groupby(["kind", "task"]))) for items in (dense_items, pruned_items)]
    rows = []
    for kind, task in keys:
        first, second = (_scores(group.get((kind, task)), task) for group in groups)
        _same_items(first, second, task)
        _same_data(dense, pruned, (kind, task))
        about = dense.loc[(kind, task)] if (kind, task) in dense.index else pruned.loc[(kind, task)]
        # An item without a score, such as one whose answer was cut off by an error, cannot be paired.
        both = (first.notna() & second.notna()).to_numpy(dtype=bool)
        x, y = (scores.to_numpy(dtype=float)[both] for scores in (first, second))
        if not _averaged(dense, pruned, (kind, task)) or not _on_the_scale(x, y):
            continue
        chance = float(about["chance"]) if pd.notna(about["chance"]) else 0.0
        rows.append(_row(str(task), str(kind), str(about["metric"]), len(x), paired(x, y), chance))
    tasks = pd.DataFrame(rows, columns=COLUMNS)
    return pd.concat([tasks, pool(tasks)], ignore_index=True) if rows else tasks


def paired(dense: np.ndarray, pruned: np.ndarray) -> Paired:
    """Estimate both scores and their difference from (n,) paired items between 0 and 1, as suits them."""
    n, first, second = len(dense), mean_score(dense), mean_score(pruned)
    best = wilson(n, n).low if binary(dense) else student(np.ones(n), SCORES).low
    if binary(dense) and binary(pruned):
        gained, lost = int((pruned > dense).sum()), int((pruned < dense).sum())
        return Paired(first, second, tango(gained, lost, n), mcnemar_p(gained, lost), MCNEMAR, best)
    differences = pruned - dense
    return Paired(first, second, student(differences, DIFFERENCES), student_p(differences), STUDENT, best)


def pool(rows: pd.DataFrame) -> pd.DataFrame:
    """Sum up the tasks of each kind: a row of the task "mean", every task counting alike, see `stratified`.

    Args:
        rows: rows of `compare` for one pair of models; those of the task "mean" are not used.

    Returns:
        `COLUMNS`, one row a kind in order of the rows. One task is its own mean.
    """
    means = []
    for kind, own in rows[rows["task"] != MEAN].groupby("kind", sort=False):
        if len(own) == 1:
            means.append(own.assign(task=MEAN)[COLUMNS])
            continue
        counts = own["n"].to_numpy(dtype=int)
        dense, pruned = (
            stratified(_intervals(own, name, f"{name}_low", f"{name}_high"), counts, SCORES)
            for name in ("dense", "pruned")
        )
        difference = stratified(_intervals(own, "difference", "low", "high"), counts, DIFFERENCES)
        best = stratified([wilson(n, n) for n in counts.tolist()], counts, SCORES).low
        metrics = own["metric"].unique()
        metric = str(metrics[0]) if len(metrics) == 1 else "several"
        found = Paired(dense, pruned, difference, normal_p(difference), STRATIFIED, best)
        row = _row(MEAN, str(kind), metric, int(counts.sum()), found, float(own["chance"].mean()))
        means.append(pd.DataFrame([row], columns=COLUMNS))
    return pd.concat(means, ignore_index=True) if means else pd.DataFrame(columns=COLUMNS)


def verdict_of(difference: Interval, dense: Interval, chance: float, best: float) -> str:
    """What became of a score.

    - "higher": the interval of the difference lies above 0;
    - "no signal": dense is not clearly above chance, so that there is nothing that pruning could take away;
    - "lower": the interval lies below 0;
    - "no change": it includes 0 and no difference larger than `MARGIN`;
    - "too few items": all else, the data allow for no difference and for one that matters. So do tasks with so few
      items that not even a perfect score, whose lower limit is ``best``, would be clearly above chance.
    """
    if difference.low > 0:
        return HIGHER
    if dense.low <= chance:
        return TOO_FEW if best <= chance else NO_SIGNAL
    if difference.high < 0:
        return LOWER
    return NO_CHANGE if max(-difference.low, difference.high) <= MARGIN else TOO_FEW


def _row(task: str, kind: str, metric: str, n: int, found: Paired, chance: float) -> tuple:
    dense, pruned, difference = found.dense, found.pruned, found.difference
    retained = fieller(pruned.shifted(-chance), dense.shifted(-chance), difference)
    verdict = verdict_of(difference, dense, chance, found.best)
    # Adding 0 makes a zero of what may be a negative zero.
    scores = [number + 0.0 for number in (*dense, *pruned, *difference)]
    return task, kind, metric, n, *scores, found.p, found.method, chance, *(part + 0.0 for part in retained), verdict


def _intervals(rows: pd.DataFrame, *columns: str) -> list[Interval]:
    return [Interval(*numbers) for numbers in rows[list(columns)].to_numpy(dtype=float).tolist()]


def _averaged(dense: pd.DataFrame, pruned: pd.DataFrame, key: tuple[str, str]) -> bool:
    return all(bool(frame.loc[key, "averaged"]) for frame in (dense, pruned) if key in frame.index)


def _same_data(dense: pd.DataFrame, pruned: pd.DataFrame, key: tuple[str, str]) -> None:
    first, second = (frame.loc[key, "data"] if key in frame.index else None for frame in (dense, pruned))
    if None not in (first, second) and first != second:
        raise ValueError(
            f"task {key[1]}: the rows of its data were others for the dense model ({first}) than for the pruned one "
            f"({second}); they have changed since: remove the older evaluation and evaluate both again"
        )


def _main(scores: pd.DataFrame) -> pd.DataFrame:
    """The row of each task's main metric, by kind and task."""
    return scores[scores["main"].astype(bool)].drop_duplicates(["kind", "task"]).set_index(["kind", "task"])


def _scores(items: pd.DataFrame | None, task: str) -> pd.Series:
    """Scores by item, in order of the items."""
    if items is None:
        return pd.Series(dtype=float)
    if items["item"].duplicated().any():
        raise ValueError(f"task {task} has two scores for one item; evaluate it again")
    return items.set_index("item")["score"].astype(float).sort_index()


def _on_the_scale(*scores: np.ndarray) -> bool:
    """Whether there are scores, all of them from 0 to 1."""
    return all(len(own) > 0 and own.min() >= 0 and own.max() <= 1 for own in scores)


def _same_items(dense: pd.Series, pruned: pd.Series, task: str) -> None:
    others = len(dense.index.symmetric_difference(pruned.index))
    if others:
        raise ValueError(
            f"task {task}: {others} items were asked of only one of the dense and the pruned model; "
            "evaluate both with the same task settings"
        )
