"""Tracked runs of a job and of the dense model that it is compared with: their names, ids and configs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.common.files import write_json
from pipeline.common.version import NAME, version
from pipeline.config.schema import NO_ARTIFACTS
from pipeline.store.artifacts import Store
from pipeline.store.integrity import digest, file_digest
from pipeline.store.records import OK, JobRecord, dense_of, load_records
from pipeline.tables.job_columns import DENSE, label_of
from pipeline.tables.job_tables import JobTables
from pipeline.track import RunSpec, track
from pipeline.track.agent import under_agent
from pipeline.track.job_log import Wanted, log_dense, log_figures, shared_section, shares_layers
from pipeline.track.keys import FIGURES
from pipeline.track.names import chosen, project_of, tags_of
from pipeline.track.over_sparsity import log_curves
from pipeline.track.receipt import logged_before

if TYPE_CHECKING:
    from pipeline.plot.drawing import FigureResult

_NODE = "wandb."
# Parts of a configuration that say nothing about results.
_INCIDENTAL = ("wandb", "figures", "objective", "outputs")
_IDS = ("job", "variant_id", "settings_id", "model_id")
_MACHINE = ("system", "processor", "cores", "threads", "memory_gib", "gpus")


def wandb_of(record: JobRecord) -> dict[str, Any]:
    """Return the node ``wandb`` of a job's configuration."""
    return {key.removeprefix(_NODE): value for key, value in record.config.items() if key.startswith(_NODE)}


def run_spec(record: JobRecord, store: Store, sweep: str, several: bool) -> RunSpec:
    """Return the run of a job that begins, one of ``several`` of a sweep or the only one of its command."""
    wandb = wandb_of(record)
    task = str(record.config.get("task.name", ""))
    return RunSpec(
        outputs=store.root,
        mode=str(wandb.get("mode", "auto")),
        project=project_of(wandb),
        entity=chosen(wandb, "entity"),
        name=chosen(wandb, "name") or f"{record.model} {label_of(record)}",
        group=chosen(wandb, "group") or sweep,
        job_type=chosen(wandb, "job_type") or record.pruner,
        tags=(record.model, record.pruner, f"sparsity {record.sparsity}", task, *tags_of(wandb)),
        config=_config_of(record),
        notes=chosen(wandb, "notes"),
        job=record.job,
        # The environment is that of all jobs of a sweep, and names one run.
        id=wandb.get("id") if several else chosen(wandb, "id"),
        earlier=record.wandb,
    )


def wanted_of(record: JobRecord, several: bool) -> Wanted:
    """Return what a job's run gets; jobs of a sweep share curves that do not depend on their settings."""
    return Wanted(str(wandb_of(record).get("artifacts")), share=several and _has_dense_run(record))


def track_figures(
    jobs: Sequence[JobRecord], drawn: Sequence[FigureResult], page: Path, store: Store, sweep: str
) -> None:
    """Log the figures of a sweep, its curves over sparsity and its page as a run of its own.

    A later sweep of the same jobs resumes it.
    """
    identity = digest({"figures of": sorted(job.job for job in jobs)})
    receipt, wandb = store.root / "wandb" / "receipts" / f"{identity}.json", wandb_of(jobs[-1])
    spec = replace(
        run_spec(jobs[-1], store, sweep, several=True),
        name=f"figures of {sweep}",
        job_type=FIGURES,
        tags=(jobs[-1].model, FIGURES, *tags_of(wandb)),
        config={"settings": jobs[-1].settings, "settings_id": jobs[-1].settings_id},
        job=identity,
        id=None,
        earlier=json.loads(receipt.read_text(encoding="utf-8")) if receipt.is_file() else {},
    )
    with track(spec) as tracker:
        log_figures(tracker, drawn)
        log_curves(tracker, jobs, store)
        if wandb.get("artifacts") != NO_ARTIFACTS and tracker.begins("report", file_digest(page)):
            tracker.artifact(f"report-{sweep}", "report", [page], {"settings": jobs[-1].settings})
    if tracker.receipt.run_id:
        write_json(receipt, tracker.receipt.facts())


def _has_dense_run(record: JobRecord) -> bool:
    """Return whether the dense model that a job is compared with gets a run: not under an agent, whose runs are its."""
    return "evaluate" in record.config.get("stages", ()) and not under_agent()


def track_dense(tables: JobTables, store: Store, sweep: str, several: bool, mode: str) -> None:
    """Log the dense model that a finished job was compared with as a run of its own, unless that has been done.

    In a sweep, it is part of the newest one's group. ``mode`` is that of the job's own run.
    """
    record = tables.record
    if record.pruner == DENSE or not _has_dense_run(record):
        return
    # Other jobs are compared with the same one.
    with store.alone("dense run"):
        dense = dense_of(record, [job for job in load_records(store.jobs) if job.pruner == DENSE and job.status == OK])
        if dense is None or "evaluation" not in dense.artifacts:
            return
        spec = run_spec(_of_command(dense, record), store, sweep, several=True)
        spec = replace(spec, name=f"{dense.model} {label_of(dense)}", job_type=DENSE)
        pruned = tables if several and shares_layers(tables) else JobTables(dense, store)
        if _is_logged(dense, pruned, mode, spec.group if several else None):
            return
        with track(spec) as tracker:
            log_dense(JobTables(dense, store), tracker, pruned, wanted_of(record, several))
        if tracker.receipt.run_id:
            dense.wandb = tracker.receipt.facts()
            with store.alone("records"):
                dense.write(store.jobs / f"{dense.job}.json")


def _of_command(dense: JobRecord, record: JobRecord) -> JobRecord:
    """Return the dense job as of this command: where and how it is tracked, but for the id of the job's own run."""
    shared = {f"{_NODE}{key}": value for key, value in wandb_of(record).items() if key != "id"}
    config = {key: value for key, value in dense.config.items() if not key.startswith(_NODE)}
    return JobRecord(**{**vars(dense), "config": {**config, **shared}})


def _is_logged(dense: JobRecord, pruned: JobTables, mode: str, group: str | None) -> bool:
    """Return whether the dense run has all that it gets from this job already, and is in the group, if it is to be."""
    logged = logged_before(dense.wandb, dense.wandb.get("id", ""), mode)
    if group and dense.wandb.get("group") != group:
        return False
    name, source = shared_section(pruned)
    return "scores" in logged and (pruned.measures is None or logged.get(name) == source)


def _config_of(record: JobRecord) -> Mapping[str, Any]:
    """Return what W&B filters and groups by: the resolved configuration, the ids, the code, versions and machine."""
    origin = record.origin
    settings = {key: value for key, value in record.config.items() if key.partition(".")[0] not in _INCIDENTAL}
    versions = {NAME: version(), "python": origin.get("python"), **dict(origin.get("packages") or {})}
    gpus = origin.get("gpus") or []
    return {
        **settings,
        **{name: getattr(record, name) for name in _IDS},
        "settings": record.settings,
        "sparsity": settings.get("sparsity") if record.pruner != DENSE else 0,
        "dtype": record.dtype,
        "commit": origin.get("commit"),
        "dirty": origin.get("dirty"),
        "versions": {name.replace(".", "_"): value for name, value in versions.items()},
        "gpu": gpus[0].partition(",")[0] if gpus else None,
        "machine": {name: origin.get(name) for name in _MACHINE},
    }
