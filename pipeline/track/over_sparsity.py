"""Mean scores of a sweep over the share removed, for its closing run: one curve for each pruner with its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import pandas as pd

from pipeline.analysis.score_rows import PERPLEXITY, Numbers, Row, rows_of_jobs
from pipeline.store.artifacts import Store
from pipeline.store.integrity import digest
from pipeline.store.records import OK, JobRecord, load_records
from pipeline.tables.job_columns import DENSE
from pipeline.tables.job_tables import JobTables
from pipeline.tables.variants import Variant
from pipeline.track import Tracker
from pipeline.track.keys import REMOVED, kind_key


def log_curves(tracker: Tracker, jobs: Sequence[JobRecord], store: Store) -> None:
    """Log the curves of these finished jobs: ``over_sparsity/<line>/<kind of task>`` over the share removed."""
    for line, frame in curves(jobs, store).items():
        if tracker.begins(f"over sparsity {line}", digest(frame.to_json())):
            tracker.curve(f"over_sparsity/{line}", frame.rename(columns=kind_key), REMOVED)


def curves(jobs: Sequence[JobRecord], store: Store) -> dict[str, pd.DataFrame]:
    """Return a table of mean main scores for each line: a row per share ``removed``, a column per kind of task.

    A line is a pruner with its options, of one model under one set of conditions, which are part of its name where the
    jobs have several. The dense model is its point at 0. Jobs that differ only in their seed or draw are averaged, as
    are settings that removed the same share.
    """
    baselines = [job for job in load_records(store.jobs) if job.pruner == DENSE and job.status == OK]
    rows = [row for row in rows_of_jobs(jobs, baselines) if row.first.achieved is not None]
    found = Numbers(JobTables(job, store) for row in rows for job in row.jobs)
    models = len({row.first.model_id for row in rows}) > 1
    points: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        if row.first.pruner != DENSE:
            own = points.setdefault(_line(row, rows, models), [_point(dense, found) for dense in _dense(row, rows)])
            own.append(_point(row, found))
    tables = {line: pd.DataFrame(own).groupby(REMOVED).mean().reset_index() for line, own in points.items()}
    return {line: table for line, table in tables.items() if table.shape[1] > 1}


def _dense(row: Row, rows: Sequence[Row]) -> list[Row]:
    mine = row.first.model_id, row.first.settings_id
    return [one for one in rows if one.first.pruner == DENSE and (one.first.model_id, one.first.settings_id) == mine]


def _point(row: Row, found: Numbers) -> dict[str, float]:
    means = {job: own | _perplexity(found.texts[job]) for job, own in found.means.items()}
    kinds = dict.fromkeys(kind for job in row.jobs for kind in means[job.job])
    numbers = {kind: row.repeated({job: own.get(kind) for job, own in means.items()}) for kind in kinds}
    return {REMOVED: row.first.achieved or 0.0} | {kind: number.mean for kind, number in numbers.items() if number}


def _perplexity(texts: Mapping[str, float]) -> dict[str, float]:
    return {PERPLEXITY: fmean(texts.values())} if texts else {}


def _line(row: Row, rows: Sequence[Row], models: bool) -> str:
    # Options that all rows of a pruner share do not distinguish them.
    several = len({one.options for one in rows if one.first.pruner == row.first.pruner}) > 1
    name = Variant(row.first.pruner, row.first.sparsity, row.options if several else "").line
    asked = [f"{key}={value}" for key, value in row.conditions.items()]
    words = [*([f"{row.first.model} {row.first.model_id[:4]}"] if models else []), name, *asked]
    # W&B does not plot by keys with dots.
    return ", ".join(words).replace(".", "_")
