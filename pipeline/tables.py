"""The tidy tables: every finished job's scores and measures in one place, for figures and for people."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pandas as pd

from pipeline.records import OK, JobRecord, load_records
from pipeline.store import Store

WHO = ["model", "pruner", "sparsity"]
SCORES, MEASURES, TRAJECTORIES, JOBS = "scores.parquet", "measures.parquet", "trajectories.parquet", "jobs.parquet"
OPTIONS, OPTION_TOKENS, PROMPTS = "options.parquet", "option_tokens.parquet", "prompts.parquet"
# The tables that the artifact of a job's measures holds.
STATES = (MEASURES, TRAJECTORIES, OPTIONS, OPTION_TOKENS, PROMPTS)


def collect(store: Store) -> None:
    """Write all tables from the records of all finished jobs."""
    records = [record for record in load_records(store.jobs) if record.status == OK]
    scores = [scores_of(record, store) for record in records]
    _write(scores, store.tables / SCORES)
    for name in STATES:
        _write([_part(record, store, "measures", name) for record in records], store.tables / name)
    jobs = pd.DataFrame(
        [
            {
                "job": record.job,
                "settings": record.settings,
                "states": record.states,
                "model": record.model,
                "pruner": record.pruner,
                "sparsity": record.sparsity,
                "unit": record.unit,
                "achieved": record.achieved,
                "parameters": record.parameters,
                "dense_parameters": record.dense_parameters,
                "status": record.status,
                "finished": record.finished,
            }
            for record in records
        ]
    )
    _write([jobs], store.tables / JOBS)


def scores_of(record: JobRecord, store: Store) -> pd.DataFrame | None:
    """A job's scores with who and how: model, pruner, sparsity, achieved, task, kind, metric, value, stderr, n, …"""
    frame = _part(record, store, "evaluation", SCORES)
    if frame is not None:
        frame.insert(len(WHO), "achieved", record.achieved)
    return frame


def measures_of(record: JobRecord, store: Store) -> pd.DataFrame | None:
    """A job's measures, or None if it has none (dense has none)."""
    return _part(record, store, "measures", MEASURES)


def _part(record: JobRecord, store: Store, role: str, name: str) -> pd.DataFrame | None:
    if role not in record.artifacts:
        return None
    path = store.root / record.artifacts[role] / name
    if not path.is_file():
        return None
    frame = pd.read_parquet(path)
    for place, column in enumerate(WHO):
        frame.insert(place, column, getattr(record, column))
    return frame.assign(job=record.job, settings=record.settings if role == "evaluation" else record.states)


def _write(frames: list[pd.DataFrame | None], path: Path) -> None:
    there = [frame for frame in frames if frame is not None and len(frame)]
    if not there:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        pd.concat(there, ignore_index=True).to_parquet(scratch, index=False)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
