"""The tidy tables: every finished job's scores and measures in one place, for figures and for people."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.files import replacing
from pipeline.config.sparsity import parse, takes_sparsity
from pipeline.store.artifacts import Store
from pipeline.store.records import OK, JobRecord, load_records
from pipeline.store.table_names import (
    COMPARISONS,
    DECISION,
    ITEMS,
    JOBS,
    MEASURES,
    RANKINGS,
    SCORES,
    STATES,
)
from pipeline.tables.labels import CALIBRATION, Facts, changed_options, label, option_texts, options_of

log = logging.getLogger(__name__)
# What a person may group by, in every table: who comes before the table's own columns, the rest behind.
WHO = [
    "model",
    "model_revision",
    "pruner",
    "pruner_options",
    "sparsity",
    "sparsity_value",
    "unit",
    "seed",
    "pruner_draw",
]
HOW = ["calibration", "calibration_options", "sequences", "length", "dtype", "shots", "chat_template", "limit"]
IDS = ["variant_id", "settings_id", "model_id", "job", "commit", "started", "settings"]
# What readers need of the table of jobs; it has a column for each scalar option of a pruner beside these.
JOB_COLUMNS = [*WHO, *HOW, *IDS, "base_id", "changed", "achieved", "parameters", "dense_parameters", "finished"]
_OWN = ("shots",)
DENSE = "dense"


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
    jobs = pd.DataFrame([_job_row(record) for record in records])
    # The order of columns does not depend on which job has ended first.
    options = sorted(name for name in jobs if name.startswith("pruner."))
    _write([jobs[[*(name for name in jobs if name not in options), *options]]], store.tables / JOBS)


def _job_row(record: JobRecord) -> dict[str, Any]:
    """A job's row of the table of jobs: who it is, every option that is one plain value, and what it removes."""
    columns = columns_of(record)
    options = options_of(record.config, "pruner")
    scalar = {f"pruner.{name}": _number(value) for name, value in options.items() if isinstance(value, int | float)}
    names = ("base_id", "achieved", "parameters", "dense_parameters", "status", "finished")
    own = {name: getattr(record, name) for name in names}
    changed = {"changed": _json([] if record.pruner == DENSE else changed_options(record.config))}
    return columns | scalar | changed | {"calibrated": record.calibrated} | own


def columns_of(record: JobRecord) -> dict[str, Any]:
    """Return the columns that say whose rows are whose: ``WHO``, ``HOW`` and ``IDS``.

    Options are JSON texts. ``sparsity_value`` is a fraction, the fraction of an N:M pattern, or a number of units.
    A pruner that reads no text has no calibration. ``limit`` and ``shots`` are missing where they are the tasks' own.
    """
    config = record.config
    options = {} if record.pruner == DENSE else options_of(config, "pruner")
    calibration = options_of(config, CALIBRATION) if record.calibrated else {}
    shots = config.get("task.shots")
    return {
        "model": record.model,
        "model_revision": record.model_revision,
        "pruner": record.pruner,
        "pruner_options": _json(options),
        "sparsity": record.sparsity,
        "sparsity_value": parse(record.sparsity).value,
        "unit": record.unit,
        "seed": record.seed,
        "pruner_draw": int(record.replicate.get("pruner.draw", 1)),
        "calibration": str(config.get("calibration.name", "")) if record.calibrated else "",
        "calibration_options": _json(calibration),
        "sequences": _number(calibration.get("sequences")),
        "length": _number(calibration.get("length")),
        "dtype": record.dtype,
        "shots": _number(shots if isinstance(shots, int) else None),
        "chat_template": bool(config.get("task.chat_template", False)),
        "limit": _number(config.get("task.limit")),
        "variant_id": record.variant_id,
        "settings_id": record.settings_id,
        "model_id": record.model_id,
        "job": record.job,
        "commit": str(record.origin.get("commit") or ""),
        "started": record.started,
        "settings": record.settings,
    }


def facts_of(columns: Mapping[str, Any]) -> Facts:
    """Return what sets a job's variant apart, from its row of the table of jobs."""
    options = json.loads(columns["pruner_options"])
    options |= {f"{CALIBRATION}.name": columns["calibration"]} if columns["calibration"] else {}
    options |= {f"{CALIBRATION}.{name}": value for name, value in json.loads(columns["calibration_options"]).items()}
    changed = [name for name in json.loads(columns["changed"]) if name in options]
    return Facts(columns["variant_id"], columns["pruner"], columns["sparsity"], options, changed)


def facts_of_records(records: Sequence[JobRecord]) -> list[Facts]:
    """Return what sets the variants of these jobs apart."""
    return [facts_of(_job_row(record)) for record in records if record.variant_id]


def labels_of(records: Sequence[JobRecord]) -> dict[str, str]:
    """Return a label for each variant among these jobs, by its id."""
    texts = option_texts(facts_of_records(records))
    return {
        record.variant_id: label(
            record.pruner, record.sparsity, texts[record.variant_id], takes_sparsity(record.pruner)
        )
        for record in records
    }


def label_of(record: JobRecord) -> str:
    """Return the label of one job by itself, with its seed and draw where they are not the first."""
    more = [f"seed {record.seed}"] if record.seed else []
    more += [f"draw {draw}"] if (draw := record.replicate.get("pruner.draw", 1)) != 1 else []
    return ", ".join([labels_of([record])[record.variant_id], *more])


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def bring_up_to_date(outputs: Path) -> None:
    """Write the tables again where the table of jobs lacks columns of today: jobs of an earlier layout fill them."""
    path = outputs / "tables" / JOBS
    try:
        there = pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        return
    if set(JOB_COLUMNS) <= set(there):
        return
    store = Store(outputs)
    if any(record.status == OK for record in load_records(store.jobs)):
        with store.alone("records"):
            collect(store)


def scores_of(record: JobRecord, store: Store) -> pd.DataFrame | None:
    """A job's scores of all tasks and its perplexity: whose they are, those of ``Results``, achieved."""
    parts = [_part(record, store, role, SCORES) for role in ("evaluation", "perplexity")]
    there = [part for part in parts if part is not None]
    if not there:
        return None
    frame = pd.concat(there, ignore_index=True)
    # What an earlier version has found lacks these.
    shares = frame["higher_is_better"].astype(bool) & frame["value"].between(0, 1)
    averaged = frame["averaged"].where(frame["averaged"].notna(), shares) if "averaged" in frame else shares
    data = frame["data"].fillna("") if "data" in frame else ""
    return frame.assign(averaged=averaged.astype(bool), data=data, achieved=record.achieved)


def comparisons_of(record: JobRecord, store: Store) -> pd.DataFrame | None:
    """A job's scores beside those of the dense model, task by task, or None if it has none."""
    return _part(record, store, "comparison", COMPARISONS)


def rankings_of(record: JobRecord, store: Store) -> pd.DataFrame | None:
    """What a search for units has found: layer, sublayer, score, step (-1: of the unit alone), or None without one."""
    if "decision" not in record.artifacts:
        return None
    decision = store.root / record.artifacts["decision"] / DECISION
    scores = json.loads(decision.read_text(encoding="utf-8"))["scores"]
    rows = [score for score in scores if "step" in score]
    return _told(pd.DataFrame(rows), record) if rows else None


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
    return _told(pd.read_parquet(path), record)


def _told(frame: pd.DataFrame, record: JobRecord) -> pd.DataFrame:
    """The frame with the columns that say whose rows these are; tasks have shots of their own."""
    columns = {name: value for name, value in columns_of(record).items() if name not in _OWN or name not in frame}
    before, after = ([name for name in names if name in columns] for names in (WHO, (*HOW, *IDS)))
    return frame.assign(**columns)[[*before, *(name for name in frame if name not in columns), *after]]


def _write(frames: list[pd.DataFrame | None], path: Path) -> None:
    there = [frame for frame in frames if frame is not None and len(frame)]
    if not there:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as scratch:
        # Readers are told of a page that has changed on disk.
        pd.concat(there, ignore_index=True).to_parquet(scratch, index=False, write_page_checksum=True)
