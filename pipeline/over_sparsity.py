"""A sweep's mean scores over the share removed, a curve a pruner, for the run that closes the sweep."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.records import JobRecord
from pipeline.store import Store
from pipeline.tables import SCORES, scores_of
from pipeline.tracking import Tracker

REMOVED = "removed"


def log_curves(tracker: Tracker, jobs: Sequence[JobRecord], store: Store) -> None:
    """Log the curves of these finished jobs: ``over_sparsity/<pruner>/<kind of task>`` over the share removed."""
    for pruner, frame in curves(jobs, store).items():
        tracker.curve(f"over_sparsity/{pruner}", frame, REMOVED)


def curves(jobs: Sequence[JobRecord], store: Store) -> dict[str, pd.DataFrame]:
    """By pruner, a row for each share ``removed`` and a column for each kind of task: the mean of the main scores.

    The dense model is the point at 0. Jobs that removed as much, such as those of several seeds, are averaged; a task
    counts if it was asked at every share but, perhaps, that of the dense model.
    """
    parts = [part for job in jobs if (part := scores_of(job, store)) is not None]
    if not parts:
        return {}
    scores = pd.concat(parts, ignore_index=True)
    scores = scores[scores["main"] & scores["achieved"].notna()]
    folders = {folder for job in jobs if (folder := job.artifacts.get("dense evaluation"))}
    baselines = [pd.read_parquet(store.root / folder / SCORES) for folder in sorted(folders)]
    dense = pd.concat(baselines).query("main").drop_duplicates(["kind", "task"]) if baselines else scores.head(0)
    found = {}
    for pruner, own in scores.groupby("pruner"):
        asked = own.groupby(["kind", "task"])["achieved"].transform("nunique")
        own = own[asked == own["achieved"].nunique()]
        if own.empty:
            continue
        if not (own["achieved"] == 0).any():
            mine = pd.MultiIndex.from_frame(dense[["kind", "task"]]).isin(
                pd.MultiIndex.from_frame(own[["kind", "task"]])
            )
            own = pd.concat([dense[mine].assign(achieved=0.0), own])
        by_task = own.groupby(["achieved", "kind", "task"])["value"].mean()
        table = by_task.groupby(["achieved", "kind"]).mean().unstack("kind").reset_index()
        found[str(pruner)] = table.rename(columns={"achieved": REMOVED}).rename_axis(columns=None)
    return found
