"""Scores of a pruned model against the dense model on the same items: differences, retained shares, and verdicts.

Every interval covers 95 %. `compare` takes one pair of models task by task; `pool` averages the tasks of a kind from
these rows alone, and can therefore combine tasks of several suites later.
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
from pipeline.evaluate.verdict import KEPT, LOST, MARGIN, UNDECIDED, verdict

MEAN = "mean"  # the task of rows that average a kind
MCNEMAR, STUDENT, STRATIFIED = "mcnemar", "student", "stratified"
NO_SIGNAL = "no signal"
VERDICTS = (KEPT, LOST, UNDECIDED, NO_SIGNAL)
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

    ``p`` comes from the same test as the difference's interval: it is below 0.05 exactly where the interval excludes 0.
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

    Binary items get McNemar's corrected test and the matching interval of Tango (1998), others Student's paired t: see
    `pipeline.evaluate.intervals`. Each kind with items also gets a row of the task "mean", see `pool`. Main metrics
    that are not averaged, or whose items are missing or not between 0 and 1, such as perplexities, are left out: their
    ratio is in the scores.

    Args:
        dense_items, pruned_items: task, kind, item, score (0 to 1): the main metric of every item.
        scores_dense, scores_pruned: one row per task and metric: task, kind, metric, main, averaged, chance, data.

    Returns:
        `COLUMNS`. ``difference`` is pruned minus dense with its interval ``low`` to ``high``; ``retained`` is the
        share of the dense score above chance that the pruned model retains, missing where dense is not clearly above
        chance, and its interval excludes 1 exactly where that of the difference excludes 0; ``p`` is below 0.05
        exactly there; ``verdict`` is one of `VERDICTS`, see `verdict_of`.

    Raises:
        ValueError: if the two models were not asked the same items.
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
    """Estimate both scores and their difference from (n,) paired items in [0, 1]: `tango` if binary, else `student`."""
    n, first, second = len(dense), mean_score(dense), mean_score(pruned)
    best = wilson(n, n).low if binary(dense) else student(np.ones(n), SCORES).low
    if binary(dense) and binary(pruned):
        gained, lost = int((pruned > dense).sum()), int((pruned < dense).sum())
        return Paired(first, second, tango(gained, lost, n), mcnemar_p(gained, lost), MCNEMAR, best)
    differences = pruned - dense
    return Paired(first, second, student(differences, DIFFERENCES), student_p(differences), STUDENT, best)


def pool(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the tasks of each kind, with equal weights, into a row of the task "mean": see `stratified`.

    Args:
        rows: rows of `compare` for one pair of models; rows of the task "mean" are ignored.

    Returns:
        `COLUMNS`, one row per kind in the order of the rows. A single task is its own mean.
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
    """Classify the change of a score: the `verdict` on a difference of no more than `MARGIN`.

    Where dense is not clearly above chance, or by no more than the margin, pruning has nothing to take away that would
    count as lost: "no signal". With so few items that not even a perfect score, whose lower limit is ``best``, would be
    clearly above chance, that cannot be told either.
    """
    if dense.low <= chance:
        return UNDECIDED if best <= chance else NO_SIGNAL
    if dense.value - chance <= MARGIN:
        return NO_SIGNAL
    return verdict(difference, -MARGIN)


def _row(task: str, kind: str, metric: str, n: int, found: Paired, chance: float) -> tuple:
    dense, pruned, difference = found.dense, found.pruned, found.difference
    retained = fieller(pruned.shifted(-chance), dense.shifted(-chance), difference)
    word = verdict_of(difference, dense, chance, found.best)
    # Adding 0 turns a negative zero into zero.
    scores = [number + 0.0 for number in (*dense, *pruned, *difference)]
    return task, kind, metric, n, *scores, found.p, found.method, chance, *(part + 0.0 for part in retained), word


def _intervals(rows: pd.DataFrame, *columns: str) -> list[Interval]:
    return [Interval(*numbers) for numbers in rows[list(columns)].to_numpy(dtype=float).tolist()]


def _averaged(dense: pd.DataFrame, pruned: pd.DataFrame, key: tuple[str, str]) -> bool:
    return all(bool(frame.loc[key, "averaged"]) for frame in (dense, pruned) if key in frame.index)


def _same_data(dense: pd.DataFrame, pruned: pd.DataFrame, key: tuple[str, str]) -> None:
    first, second = (frame.loc[key, "data"] if key in frame.index else None for frame in (dense, pruned))
    if None not in (first, second) and first != second:
        raise ValueError(
            f"task {key[1]}: the dense model was evaluated on other data ({first}) than the pruned one ({second}); the "
            "files have changed since: remove the older evaluation and evaluate both again"
        )


def _main(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the row of each task's main metric, indexed by kind and task."""
    return scores[scores["main"].astype(bool)].drop_duplicates(["kind", "task"]).set_index(["kind", "task"])


def _scores(items: pd.DataFrame | None, task: str) -> pd.Series:
    """Return the scores indexed by item, in item order."""
    if items is None:
        return pd.Series(dtype=float)
    if items["item"].duplicated().any():
        raise ValueError(f"task {task} has two scores for one item; evaluate it again")
    return items.set_index("item")["score"].astype(float).sort_index()


def _on_the_scale(*scores: np.ndarray) -> bool:
    """Return whether there are scores, all of them from 0 to 1."""
    return all(len(own) > 0 and own.min() >= 0 and own.max() <= 1 for own in scores)


def _same_items(dense: pd.Series, pruned: pd.Series, task: str) -> None:
    others = len(dense.index.symmetric_difference(pruned.index))
    if others:
        raise ValueError(
            f"task {task}: {others} items were given to only one of the dense and the pruned model; evaluate both with "
            "the same task settings"
        )
