"""Columns that identify a job in every table: those to group by, and the ids that rows are joined by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.config.signature import takes_sparsity
from pipeline.config.sparsity import parse
from pipeline.store.records import JobRecord
from pipeline.store.table_columns import HOW, IDS, WHO
from pipeline.tables.labels import CALIBRATION, Facts, changed_options, label, option_texts, options_of

# Columns of the jobs table that readers need; it also has a column for each scalar option of a pruner.
JOB_COLUMNS = [
    *WHO, *HOW, *IDS, "base_id", "changed", "achieved", "parameters", "dense_parameters", "finished", "dropped",
]  # fmt: skip
_OWN = ("shots",)
_SEED = f"{CALIBRATION}.seed"
DENSE = "dense"


def job_row(record: JobRecord) -> dict[str, Any]:
    """Return a job's row of the jobs table: its identity, the numeric options of its pruner, and what it removes."""
    columns = columns_of(record)
    options = options_of(record.config, "pruner")
    scalar = {f"pruner.{name}": _number(value) for name, value in options.items() if isinstance(value, int | float)}
    names = ("base_id", "achieved", "parameters", "dense_parameters", "status", "finished")
    own = {name: getattr(record, name) for name in names}
    known = changed_options(record.config) if record.changed is None else record.changed
    changed = {"changed": _json([] if record.pruner == DENSE else known)}
    return columns | scalar | changed | {"calibrated": record.calibrated} | own


def columns_of(record: JobRecord) -> dict[str, Any]:
    """Return the columns that identify a job: ``WHO``, ``HOW`` and ``IDS``.

    Options are JSON texts. ``sparsity_value`` is a fraction, the fraction of an N:M pattern, or a number of units.
    The calibration is empty for a pruner that reads no text. ``limit`` and ``shots`` are missing where those of the
    tasks apply.
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
        "calibration_draw": _number(config.get(f"{CALIBRATION}.draw", 1) if record.calibrated else None),
        "calibration_seed": _number(config.get(_SEED, record.seed) if record.calibrated else None),
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
    """Return the facts that distinguish a job's variant, from its row of the jobs table."""
    options = json.loads(columns["pruner_options"])
    options |= {f"{CALIBRATION}.name": columns["calibration"]} if columns["calibration"] else {}
    options |= {f"{CALIBRATION}.{name}": value for name, value in json.loads(columns["calibration_options"]).items()}
    changed = [name for name in json.loads(columns["changed"]) if name in options]
    return Facts(columns["variant_id"], columns["pruner"], columns["sparsity"], options, changed)


def facts_of_records(records: Sequence[JobRecord]) -> list[Facts]:
    """Return the facts that distinguish the variants of these jobs."""
    return [facts_of(job_row(record)) for record in records if record.variant_id]


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
    """Return the label of a job on its own, with its seed and draw unless they are the first."""
    more = [f"seed {record.seed}"] if record.seed else []
    more += [f"draw {draw}"] if (draw := record.replicate.get("pruner.draw", 1)) != 1 else []
    more += [f"text {draw}"] if (draw := record.replicate.get("calibration.draw", 1)) != 1 else []
    more += [f"text of seed {record.replicate[_SEED]}"] if _SEED in record.replicate else []
    return ", ".join([labels_of([record])[record.variant_id], *more])


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def with_columns(frame: pd.DataFrame, record: JobRecord) -> pd.DataFrame:
    """Return the frame with the columns that identify its job; ``shots`` of the frame, which are per task, are kept."""
    columns = {name: value for name, value in columns_of(record).items() if name not in _OWN or name not in frame}
    before, after = ([name for name in names if name in columns] for names in (WHO, (*HOW, *IDS)))
    own = [name for name in frame if name not in columns]
    # All at once, since adding columns one by one takes longer than reading the frame.
    data = {name: frame[name] if name in own else columns[name] for name in (*before, *own, *after)}
    return pd.DataFrame(data, index=frame.index)
