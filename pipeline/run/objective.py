"""What a job returns to a sweeper that chooses its next trials by it."""

from __future__ import annotations

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

# Kinds of tasks in tables, by their names on the command line.
_KINDS = {"generation": "generative", "choice": "multiple_choice", "retrieval": "retrieval"}
_RETAINED = "retained_"


def objective_of(record: JobRecord, outputs: Path, names: Sequence[str]) -> float | list[float]:
    """Return the number of a job for one name of ``pipeline.config.objective``, the numbers for several.

    They are NaN for a job that failed and for what it does not have, which sweepers count as a failed trial.
    """
    tables = JobTables(record, Store(outputs)) if record.status == OK else None
    numbers = [math.nan if tables is None else _number(tables, name) for name in names]
    return numbers[0] if len(numbers) == 1 else numbers


def _number(tables: JobTables, name: str) -> float:
    if name.startswith(_RETAINED):
        return _retained(tables, _KINDS[name.removeprefix(_RETAINED)])
    if name == "removed":
        return math.nan if tables.record.achieved is None else tables.record.achieved
    if name == "perplexity":
        return next(iter(perplexities(tables.scores).values()), math.nan)
    if name == "kl":
        # The dense model does not deviate from itself.
        return 0.0 if tables.record.pruner == DENSE else final_deviation(tables.measures).get("kl", math.nan)
    return mean_scores(tables.scores).get(_KINDS[name], math.nan)


def _retained(tables: JobTables, kind: str) -> float:
    """Return the share of the dense score above chance that is retained, of the mean over the tasks of a kind."""
    if tables.record.pruner == DENSE:
        return 1.0
    frame: pd.DataFrame | None = tables.comparisons
    if frame is None:
        return math.nan
    rows = frame[(frame["task"] == MEAN) & (frame["kind"] == kind)]
    return float(rows["retained"].iloc[0]) if len(rows) else math.nan
