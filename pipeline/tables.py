"""The tidy tables: every finished job's scores and measures in one place, for figures and for people."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from pipeline.files import replacing
from pipeline.records import OK, JobRecord, load_records
from pipeline.store import Store

log = logging.getLogger(__name__)
WHO = ["model", "pruner", "sparsity"]
SCORES, MEASURES, TRAJECTORIES, JOBS = "scores.parquet", "measures.parquet", "trajectories.parquet", "jobs.parquet"
OPTIONS, OPTION_TOKENS, PROMPTS = "options.parquet", "option_tokens.parquet", "prompts.parquet"
COMPARISONS, ITEMS, RANKINGS = "comparisons.parquet", "items.parquet", "rankings.parquet"
# The tables of captured states, and the role of the artifact that holds each.
STATES = {
    MEASURES: "measures",
    TRAJECTORIES: "measures",
    PROMPTS: "measures",
    OPTIONS: "option measures",
    OPTION_TOKENS: "option measures",
}


def collect(store: Store) -> None:
    """Write all tables from the records of all finished jobs."""
    records = [record for record in load_records(store.jobs) if record.status == OK]
    scores = [scores_of(record, store) for record in records]
    _write(scores, store.tables / SCORES)
    _write([comparisons_of(record, store) for record in records], store.tables / COMPARISONS)
    _write([_part(record, store, "evaluation", ITEMS) for record in records], store.tables / ITEMS)
    _write([rankings_of(record, store) for record in records], store.tables / RANKINGS)
    for name, role in STATES.items():
        _write([_part(record, store, role, name) for record in records], store.tables / name)
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
    """A job's scores of all tasks and its perplexity: model, pruner, sparsity, achieved, then those of ``Results``."""
    parts = [_part(record, store, role, SCORES) for role in ("evaluation", "perplexity")]
    there = [part for part in parts if part is not None]
    if not there:
        return None
    frame = pd.concat(there, ignore_index=True)
    frame.insert(len(WHO), "achieved", record.achieved)
    return frame


def comparisons_of(record: JobRecord, store: Store) -> pd.DataFrame | None:
    """A job's scores beside those of the dense model, task by task, or None if it has none."""
    return _part(record, store, "comparison", COMPARISONS)


def rankings_of(record: JobRecord, store: Store) -> pd.DataFrame | None:
    """What a search for units has found: layer, sublayer, score, step (-1: of the unit alone), or None without one."""
    if "decision" not in record.artifacts:
        return None
    # Deferred: readers of tables do without torch.
    from pipeline.pruners.decision import Decision

    scores = Decision.load(store.root / record.artifacts["decision"]).scores
    rows = [score for score in scores if "step" in score]
    return _told(pd.DataFrame(rows), record, record.settings, "") if rows else None


def measures_of(record: JobRecord, store: Store) -> pd.DataFrame | None:
    """A job's measures, or None if it has none (dense has none)."""
    return _part(record, store, "measures", MEASURES)


def _part(record: JobRecord, store: Store, role: str, name: str) -> pd.DataFrame | None:
    if role not in record.artifacts:
        return None
    artifact = store.root / record.artifacts[role]
    path = artifact / name
    if not path.is_file():
        return None
    if problem := store.problem(artifact):
        repair = "python -m pipeline.results verify --repair"
        log.warning("%s of job %s is left out: %s; %s", role, record.job, problem, repair)
        return None
    scored = role in ("evaluation", "perplexity", "comparison")
    settings = record.settings if scored else record.states
    return _told(pd.read_parquet(path), record, settings, record.asked.get(role, ""))


def _told(frame: pd.DataFrame, record: JobRecord, settings: str, asked: str) -> pd.DataFrame:
    """The frame with the columns that say whose rows these are."""
    for place, column in enumerate(WHO):
        frame.insert(place, column, getattr(record, column))
    return frame.assign(asked=asked, job=record.job, settings=settings)


def _write(frames: list[pd.DataFrame | None], path: Path) -> None:
    there = [frame for frame in frames if frame is not None and len(frame)]
    if not there:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as scratch:
        # Readers are told of a page that has changed on disk.
        pd.concat(there, ignore_index=True).to_parquet(scratch, index=False, write_page_checksum=True)
