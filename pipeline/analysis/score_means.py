"""Task scores of several points (model, pruner, sparsity), and their means over the tasks that all of them share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from pipeline.tables.read import Tables
from pipeline.tables.replicates import REPLICATE
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT

# The two ways of reading an answer, and all kinds whose scores are fractions and can be averaged over tasks.
READINGS = {"generative": "Generative tasks", "multiple_choice": "Multiple-choice tasks"}
KINDS = {**READINGS, "retrieval": "Retrieval tasks"}
MEAN = "mean"  # the series of the mean over tasks; the others are named after their task
SAME_SETTINGS = "Other models: same settings except for the model."
POINT = ["model", *VARIANT]
PERCENT = ["score_percent", "stderr_percent"]
CHANCE = "chance_percent"


def task_scores(tables: Tables, kinds: Iterable[str]) -> pd.DataFrame:
    """Return the finite scores of tasks of these kinds, one row per point and task: that of the task's main metric.

    Tasks whose main metric is not a fraction for every point are left out: see `other_scales`.

    Raises:
        MissingData: if there are none.
    """
    if tables.scores.empty:
        raise MissingData("the scores table has no rows for these settings")
    scores = _scores_of(tables, kinds)
    names = " or ".join(kind.replace("_", "-") for kind in kinds)
    if scores.empty:
        raise MissingData(f"the scores table has no {names} scores for these settings")
    shares = scores[_are_shares(scores)]
    if shares.empty:
        raise MissingData(f"no metric of the {names} tasks runs from 0 to 1 with higher being better")
    return shares


def other_scales(tables: Tables, kinds: Iterable[str]) -> list[str]:
    """Return a caption sentence on the tasks that `task_scores` leaves out; empty if there are none."""
    if tables.scores.empty:
        return []
    scores = _scores_of(tables, kinds)
    others = scores[~_are_shares(scores)].drop_duplicates(["task", "metric"]).sort_values("task")
    named = ", ".join(f"{row.task} ({row.metric})" for row in others.itertuples())
    return (
        [f"Not shown, because their metrics do not run from 0 to 1 with higher being better: {named}."] if named else []
    )


def _scores_of(tables: Tables, kinds: Iterable[str]) -> pd.DataFrame:
    return tables.scores[tables.scores["kind"].isin(list(kinds)) & np.isfinite(tables.scores["value"])]


def _are_shares(scores: pd.DataFrame) -> pd.Series:
    """Return for each row whether the main metric of its task counts in means, at every point."""
    return scores["averaged"].eq(True).groupby([scores["kind"], scores["task"]]).transform("all").astype(bool)


def shared_tasks(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the rows into tasks that every point of their kind has, and others, whose means would not be comparable."""
    points = scores.groupby("kind")[[*POINT, REPLICATE]].apply(lambda rows: len(rows.drop_duplicates()))
    counts = scores.groupby(["kind", "task"]).size()
    shared = [key for key, count in counts.items() if count == points[key[0]]]
    keep = pd.MultiIndex.from_frame(scores[["kind", "task"]]).isin(shared)
    return scores[keep], scores[~keep]


def with_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Compute task scores and their unweighted mean per point and kind, in percent.

    The standard error of a mean is that of a mean of independent scores, and missing where one of the scores lacks it.
    For a point with several seeds or draws, score and mean are averaged over these, and the error is their standard
    deviation.

    Returns:
        Columns: kind, model, pruner, sparsity, options, series (the task, or "mean"), achieved, score_percent,
        stderr_percent, chance_percent (the score of guessing).
    """
    groups = scores.assign(variance=scores["stderr"].astype(float) ** 2).groupby(["kind", *POINT, REPLICATE])
    means = groups.agg(achieved=("achieved", "first"), value=("value", "mean"), chance=("chance", "mean"))
    means["stderr"] = np.sqrt(groups["variance"].agg(lambda column: column.sum(skipna=False))) / groups.size()
    tasks = scores.rename(columns={"task": "series"})
    data = _over_replicates(pd.concat([tasks, means.reset_index().assign(series=MEAN)], ignore_index=True))
    data = data.assign(score_percent=100 * data["value"], stderr_percent=100 * data["stderr"].astype(float))
    return data.assign(chance_percent=100 * data["chance"])[["kind", *POINT, "series", "achieved", *PERCENT, CHANCE]]


def _over_replicates(data: pd.DataFrame) -> pd.DataFrame:
    """Average over replicates, to one row per point and series."""
    groups = data.groupby(["kind", *POINT, "series"], sort=False)
    found = groups.agg(
        achieved=("achieved", "mean"), value=("value", "mean"), chance=("chance", "mean"),
        stderr=("stderr", "first"), spread=("value", "std"), count=("value", "size"),
    ).reset_index()  # fmt: skip
    # A single row keeps its own error, even where that is missing.
    own = data.drop_duplicates(["kind", *POINT, "series"])["stderr"].astype(float).to_numpy()
    return found.assign(stderr=np.where(found["count"] > 1, found["spread"], own))


def chances(data: pd.DataFrame) -> dict[str, float]:
    """Return the mean score of guessing for each kind of task, in percent, where it is above zero.

    It may differ between models whose tasks differ; that of the first model is returned.
    """
    means = data[data["series"] == MEAN].drop_duplicates("kind").set_index("kind")[CHANCE]
    return {str(kind): float(value) for kind, value in means.items() if value > 0}


def chance_name(found: dict[str, float]) -> str:
    """Return the legend entry of the line of chance, with its percentage if all kinds with chance share one."""
    values = {f"{value:.3g}" for value in found.values()}
    return f"chance ({values.pop()}%)" if len(values) == 1 else "chance"


def task_notes(scores: pd.DataFrame, dropped: pd.DataFrame) -> list[str]:
    """Return caption sentences on the tasks of each kind, and on those that are not in the means."""
    named = {kind: set(scores.loc[scores["kind"] == kind, "task"]) for kind in KINDS}
    both = named["generative"] & named["multiple_choice"]
    notes = [f"Tasks of both kinds: {', '.join(sorted(both))}{_items(scores, *READINGS)}."] if both else []
    for kind, name in KINDS.items():
        tasks = sorted(named[kind] - both)
        if tasks:
            notes.append(f"{name}: {', '.join(tasks)}{_items(scores, kind)}.")
        elif kind in READINGS and not named[kind] and not (dropped["kind"] == kind).any():
            notes.append(f"{name}: not evaluated.")
    return [*notes, *_left_out(dropped)]


def item_count(scores: pd.DataFrame) -> str:
    """Return how many items each task of some scores has."""
    least, most = int(scores["n"].min()), int(scores["n"].max())
    return f"{most}" if least == most else f"{least} to {most}"


def _items(scores: pd.DataFrame, *kinds: str) -> str:
    return f" ({item_count(scores[scores['kind'].isin(kinds)])} items each)"


def _left_out(dropped: pd.DataFrame) -> list[str]:
    if dropped.empty:
        return []
    return [f"Left out of the means, because some points lack them: {', '.join(sorted(set(dropped['task'])))}."]


def axis_top(data: pd.DataFrame) -> float:
    """Return the upper limit of a score axis from zero, above all scores and error bars."""
    return max(1.0, 1.12 * (data["score_percent"] + data["stderr_percent"].fillna(0)).max())
