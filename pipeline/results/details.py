"""``show``: everything about one job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.terminal import show_table
from pipeline.config.schema import flatten
from pipeline.results.inventory import Shelf, readable, size_of
from pipeline.results.listing import main_scores
from pipeline.store.artifacts import Store
from pipeline.store.records import OK, OUTCOME, TRACEBACK, JobRecord, load_records
from pipeline.tables.job_columns import label_of


def show(record: JobRecord, store: Store) -> None:
    """Print a job's identity, outcome, main scores, artifacts, costs, W&B run, origin and configuration."""
    _section(f"job {record.job}", _about(record, store))
    scores = main_scores([record], store)[0]
    if scores:
        _section("main scores", {name: f"{value:.4f}" for name, value in scores.items()})
    _artifacts(record, store)
    _costs(record)
    if record.wandb:
        _section("W&B run", {**record.wandb, "logged": ", ".join(record.wandb.get("logged") or ())})
    _section("origin", flatten(record.origin))
    _section("config", record.config)


def _about(record: JobRecord, store: Store) -> dict[str, Any]:
    about: dict[str, Any] = {
        "model": record.model,
        "pruner": record.pruner,
        "sparsity": record.sparsity,
        "achieved": None if record.achieved is None else f"{record.achieved:.2%}",
        "parameters": None if record.parameters is None else f"{record.parameters:,} of {record.dense_parameters:,}",
        "status": record.status,
        "error": record.error,
    }
    if record.status != OK and (traceback := _traceback(record, store)):
        about["traceback"] = traceback
    about |= {"started": record.started, "finished": record.finished, "seconds": record.seconds}
    about |= {
        "label": label_of(record) if record.variant_id else None,
        "settings": record.settings,
        "replicate": record.replicate,
    }
    ids = ("variant_id", "settings_id", "model_id", "model_revision", "dtype")
    return about | {name: getattr(record, name) for name in ids}


def _traceback(record: JobRecord, store: Store) -> Path | None:
    """Return the path of the full error that the newest command with this job left, or None."""
    for folder in sorted(store.runs.glob("*"), reverse=True):
        for path in folder.rglob(TRACEBACK):
            if any(outcome.job == record.job for outcome in load_records(path.parent, OUTCOME)):
                return path
    return None


def _artifacts(record: JobRecord, store: Store) -> None:
    shelf = Shelf(store)
    rows: list[list[str | None]] = []
    for role, path in record.artifacts.items():
        if (artifact := shelf.named(path)) is None:
            rows.append([role, path, "missing", "", ""])
            continue
        facts = shelf.facts(artifact)
        spent = facts.get("cost", {}).get("seconds")
        built = str(facts.get("finished", ""))[:16].replace("T", " ")
        rows.append([role, path, readable(size_of(artifact.path)), built, None if spent is None else f"{spent:.1f} s"])
    if rows:
        print()
        show_table("artifacts", ["role", "path", "size", "built (UTC)", "took"], rows)


def _costs(record: JobRecord) -> None:
    costs = {"the whole job": record.spent} | record.cost if record.spent else record.cost
    columns = list(dict.fromkeys(name for cost in costs.values() for name in cost))
    there = [name for name in columns if any(cost.get(name) is not None for cost in costs.values())]
    if there:
        rows = [[name, *(cost.get(column) for column in there)] for name, cost in costs.items()]
        print()
        show_table("computed by this job itself", ["stage", *there], rows)


def _section(title: str, facts: Mapping[str, Any]) -> None:
    there = {key: value for key, value in facts.items() if value not in (None, "")}
    if there:
        print(f"\n{title}")
        width = max(len(key) for key in there)
        for key, value in there.items():
            print(f"  {key:{width}}  {value if isinstance(value, (str, Path)) else json.dumps(value)}")
