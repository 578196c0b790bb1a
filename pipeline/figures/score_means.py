"""Task scores of several points (model, pruner, sparsity), and their means over the tasks that all of them have."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from pipeline.figures.base import MissingData
from pipeline.figures.tables import Tables

KINDS = {"generative": "Generative tasks", "multiple_choice": "Multiple-choice tasks"}
CHANCE = 25.0  # percent: one option of four
MEAN = "mean"  # the series that is the mean over tasks; the others are called after their task
# Where a task reports several metrics, its score is the first of these (else the first by name).
METRICS = ("exact_match", "pass@1", "pass_at_1", "acc", "f1", "ndcg@10")
SAME_SETTINGS = "Other models: under these settings but for the model."
POINT = ["model", "pruner", "sparsity"]
PERCENT = ["score_percent", "stderr_percent"]


def task_scores(tables: Tables, kinds: Iterable[str]) -> pd.DataFrame:
    """Finite scores of tasks of these kinds, one row for each point and task.

    Raises:
        MissingData: if there are none.
    """
    if tables.scores.empty:
        raise MissingData("the scores table has no rows for these settings")
    scores = tables.scores[tables.scores["kind"].isin(kinds) & np.isfinite(tables.scores["value"])]
    if scores.empty:
        names = " or ".join(kind.replace("_", "-") for kind in kinds)
        raise MissingData(f"the scores table has no {names} scores for these settings")
    order = {name: place for place, name in enumerate(METRICS)}
    base = scores["metric"].astype(str).str.split(",").str[0]
    ranked = scores.assign(rank=base.map(order).fillna(len(order))).sort_values(["rank", "metric"], kind="stable")
    return ranked.drop_duplicates([*POINT, "kind", "task"])


def shared_tasks(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of tasks which every point of their kind has, and the others: means over other tasks do not compare."""
    points = scores.groupby("kind")[POINT].apply(lambda rows: len(rows.drop_duplicates()))
    counts = scores.groupby(["kind", "task"]).size()
    shared = [key for key, count in counts.items() if count == points[key[0]]]
    keep = pd.MultiIndex.from_frame(scores[["kind", "task"]]).isin(shared)
    return scores[keep], scores[~keep]


def with_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Task scores and their unweighted mean per point and kind, in percent.

    The standard error is that of a mean of independent scores, and missing where one of the scores lacks it.

    Returns:
        Columns: kind, model, pruner, sparsity, series (the task, or "mean"), achieved, score_percent, stderr_percent.
    """
    groups = scores.assign(variance=scores["stderr"].astype(float) ** 2).groupby(["kind", *POINT])
    means = groups.agg(achieved=("achieved", "first"), value=("value", "mean"))
    means["stderr"] = np.sqrt(groups["variance"].agg(lambda column: column.sum(skipna=False))) / groups.size()
    tasks = scores.rename(columns={"task": "series"})
    data = pd.concat([tasks, means.reset_index().assign(series=MEAN)], ignore_index=True)
    data = data.assign(score_percent=100 * data["value"], stderr_percent=100 * data["stderr"].astype(float))
    return data[["kind", *POINT, "series", "achieved", *PERCENT]]


def task_notes(scores: pd.DataFrame, dropped: pd.DataFrame) -> list[str]:
    """Sentences for the caption: the tasks of each kind, and those that are not in the means."""
    notes = []
    named = {kind: sorted(set(scores.loc[scores["kind"] == kind, "task"])) for kind in KINDS}
    if named["generative"] == named["multiple_choice"]:
        return [f"Tasks of both kinds: {', '.join(named['generative'])}.", *_left_out(dropped)]
    for kind, name in KINDS.items():
        tasks = named[kind]
        if tasks or not (dropped["kind"] == kind).any():
            notes.append(f"{name}: {', '.join(tasks)}." if tasks else f"{name}: not evaluated.")
    return [*notes, *_left_out(dropped)]


def _left_out(dropped: pd.DataFrame) -> list[str]:
    if dropped.empty:
        return []
    return [f"Not in the means, as some points lack them: {', '.join(sorted(set(dropped['task'])))}."]


def axis_top(data: pd.DataFrame) -> float:
    """The upper limit of a score axis from zero: above all scores and error bars."""
    return max(1.0, 1.12 * (data["score_percent"] + data["stderr_percent"].fillna(0)).max())
