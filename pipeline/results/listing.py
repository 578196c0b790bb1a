"""``list``: one line per job, for people and for scripts."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq

from pipeline.analysis.score_rows import PERPLEXITY
from pipeline.common.terminal import show_table
from pipeline.results.jobs import task_of
from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord
from pipeline.store.table_names import SCORES
from pipeline.tables.job_columns import columns_of, label_of
from pipeline.tables.write import bring_up_to_date

# Columns of the kinds of score that jobs may have, in this order.
KINDS = {
    "generative": "generation",
    "multiple_choice": "multiple choice",
    "retrieval": "retrieval",
    "perplexity": "ppl",
}
TEXT, JSON, CSV = "text", "json", "csv"


def show(records: Sequence[JobRecord], store: Store, form: str) -> None:
    """Print jobs as a table, or in full as JSON or CSV."""
    found = zip(records, main_scores(records, store), mean_scores(records, store), strict=True)
    rows = [_row(*own) for own in found]
    if form == JSON:
        print(json.dumps([_without_nan(row) for row in rows], indent=1, ensure_ascii=False))
        return
    if form == CSV:
        flat = [_flat(row) for row in rows]
        columns = list(dict.fromkeys(column for row in flat for column in row))
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
        return
    _print(rows)


def main_scores(records: Sequence[JobRecord], store: Store) -> list[dict[str, float]]:
    """Return the main score of every task of each job, by ``kind/task``, from the table of scores."""
    return [{f"{kind}/{task}": value for kind, task, value, _ in own} for own in _rows_of_scores(records, store)]


def mean_scores(records: Sequence[JobRecord], store: Store) -> list[dict[str, float]]:
    """Return the means of each job over its averaged tasks of each kind, and over its perplexities."""
    found = []
    for own in _rows_of_scores(records, store):
        kinds: dict[str, list[float]] = {}
        for kind, _, value, averaged in own:
            if averaged or kind == PERPLEXITY:
                kinds.setdefault(kind, []).append(value)
        found.append({kind: fmean(values) for kind, values in kinds.items()})
    return found


def _rows_of_scores(records: Sequence[JobRecord], store: Store) -> list[list[tuple[str, str, float, bool]]]:
    """Return kind, task, value and whether it is averaged, for every main score of each job."""
    bring_up_to_date(store.root)
    path = store.tables / SCORES
    if not path.is_file():
        return [[] for _ in records]
    wanted = ["kind", "task", "value", "averaged"]
    frame = pq.read_table(path, columns=["job", "main", *wanted]).to_pandas()
    frame = frame[frame["main"].astype(bool)]
    by_job = {job: list(own[wanted].itertuples(index=False, name=None)) for job, own in frame.groupby("job")}
    return [by_job.get(record.job, []) for record in records]


def _row(record: JobRecord, scores: Mapping[str, float], means: Mapping[str, float]) -> dict[str, Any]:
    return {
        "job": record.job,
        **(columns_of(record) if record.variant_id else {}),
        "label": label_of(record) if record.variant_id else record.pruner,
        "started": record.started,
        "finished": record.finished,
        "model": record.model,
        "pruner": record.pruner,
        "sparsity": record.sparsity,
        "achieved": record.achieved,
        "task": task_of(record),
        "status": record.status,
        "error": record.error,
        "seconds": record.seconds,
        "peak_gib": record.spent.get("peak_gib"),
        "means": dict(means),
        "scores": dict(scores),
        "config": record.config,
    }


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with scores as columns, without the configuration, which is in the JSON form."""
    plain = {key: value for key, value in row.items() if not isinstance(value, Mapping)}
    return plain | {f"mean/{kind}": value for kind, value in row["means"].items()} | row["scores"]


def _without_nan(value: Any) -> Any:
    """Replace numbers that are not finite by None: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    kinds = [kind for kind in KINDS if any(kind in row["means"] for row in rows)]
    who = ["model", "label", "task", "status"]
    length = shortest({row["job"] for row in rows})
    show_table(
        f"{len(rows)} job{'s' * (len(rows) != 1)}",
        ["job", "ended (UTC)", *who, *(KINDS[kind] for kind in kinds), "seconds", "GiB"],
        [
            [row["job"][:length], row["finished"][:16].replace("T", " ")]
            + [row[key] for key in who]
            + [row["means"].get(kind) for kind in kinds]
            + [f"{row['seconds']:.0f}", None if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"]
            for row in rows
        ],
    )


def shortest(ids: set[str]) -> int:
    """Return how many characters distinguish all ids, at least 8."""
    return next((n for n in range(8, 65) if len({job[:n] for job in ids}) == len(ids)), 64)
