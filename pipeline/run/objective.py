"""What a job returns to a sweeper that chooses its next trials by it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.analysis.score_rows import final_deviation, mean_scores, perplexities
from pipeline.evaluate.comparison import MEAN
from pipeline.store.artifacts import Store
from pipeline.store.records import OK, JobRecord
from pipeline.tables.job_columns import DENSE
from pipeline.tables.job_tables import JobTables

log = logging.getLogger(__name__)
# Kinds of tasks in tables, by their names on the command line.
_KINDS = {"generation": "generative", "choice": "multiple_choice", "retrieval": "retrieval"}
_RETAINED = "retained_"
Value = float | None


def objective_of(record: JobRecord, outputs: Path, names: Sequence[str]) -> Value | list[Value]:
    """Return the number of a job for one name of ``pipeline.config.objective``, the numbers for several.

    It is None for a job that failed and for what it does not have, which is logged: Optuna then counts a failed trial,
    whereas it stops at NaN.
    """
    tables = JobTables(record, Store(outputs)) if record.status == OK else None
    found = [None if tables is None else _number(tables, name) for name in names]
    numbers = [None if value is None or math.isnan(value) else value for value in found]
    for name, number in zip(names, numbers, strict=True):
        if number is None and tables is not None:
            log.error("objective=%s: %s %s has none, %s", name, record.pruner, record.sparsity, _why(name))
    return numbers[0] if len(numbers) == 1 else numbers


def _why(name: str) -> str:
    """Return why a job that went well lacks a number, and what to do."""
    if name.startswith(_RETAINED):
        plain = name.removeprefix(_RETAINED)
        return f"since the dense model is not clearly above chance; give objective={plain}, more items or other tasks"
    if name in _KINDS:
        return "since no task of that kind was scored; choose a task that has one"
    return "since it was not computed; see perplexity.tokens and capture.protocols"


def _number(tables: JobTables, name: str) -> Value:
    if name.startswith(_RETAINED):
        return _retained(tables, _KINDS[name.removeprefix(_RETAINED)])
    if name == "removed":
        return tables.record.achieved
    if name == "perplexity":
        return next(iter(perplexities(tables.scores).values()), None)
    if name == "kl":
        # The dense model does not deviate from itself.
        return 0.0 if tables.record.pruner == DENSE else final_deviation(tables.measures).get("kl")
    return mean_scores(tables.scores).get(_KINDS[name])


def _retained(tables: JobTables, kind: str) -> Value:
    """Return the share of the dense score above chance that is retained, of the mean over the tasks of a kind."""
    if tables.record.pruner == DENSE:
        return 1.0
    frame: pd.DataFrame | None = tables.comparisons
    if frame is None:
        return None
    rows = frame[(frame["task"] == MEAN) & (frame["kind"] == kind)]
    return float(rows["retained"].iloc[0]) if len(rows) else None
