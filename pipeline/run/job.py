"""One job from start to end: its stages inside one tracked run, its record, its failure."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.capture.stage import captured
from pipeline.common.errors import plain
from pipeline.common.secrets import redact, redacted
from pipeline.config.schema import HF, Settings
from pipeline.evaluate.perplexity import held_out
from pipeline.evaluate.stage import evaluated, prepare
from pipeline.export import hf
from pipeline.measure.stage import measured
from pipeline.model.sources.base import resolve_dtype
from pipeline.prune.decision import Decision
from pipeline.prune.stage import PruningDecision, pruned
from pipeline.prune.workbench import Workbench
from pipeline.run.summary import show_scores
from pipeline.store.artifacts import Artifact, SharedFailure, Store
from pipeline.store.identity import identity_of
from pipeline.store.integrity import MANIFEST, read_sealed
from pipeline.store.origins import changed_since
from pipeline.store.provenance import Meter, origin
from pipeline.store.records import FAILED, OK, OUTCOME, SKIPPED, TRACEBACK, JobRecord, find_record, now
from pipeline.tables.collect import collect, label_of, scores_of
from pipeline.tables.labels import conditions_line
from pipeline.track import RunSpec, Tracker, track
from pipeline.track.job_log import dense_scores, log_results, receipt_of

if TYPE_CHECKING:
    from pipeline.plot.drawing import FigureResult

log = logging.getLogger(__name__)
# What a job makes, in order; each gives its artifacts by role. Telling and drawing come after.
STAGES: Mapping[str, Callable[[Workbench], Mapping[str, Artifact]]] = {
    "prune": pruned,
    "evaluate": evaluated,
    "capture": captured,
    "measure": measured,
}
EXPORTS = {HF: hf.export}
# The artifact that a job's numbers are signed by: the first of these that it has.
_SIGNING = ("evaluation", "measures", "decision")


def run_job(settings: Settings, sweep: str, folder: Path) -> JobRecord:
    """Run the stages of one job. Never raises for a failing job: the record says how it ended.

    ``sweep`` names the command that the job belongs to, ``folder`` is where the outcome is left, at the start and at
    the end. An interruption passes, once the record says so.
    """
    start = time.monotonic()
    record = JobRecord("", "", settings.model.name, settings.pruner.name, settings.sparsity.given, started=now())
    tracker: Tracker | None = None
    store: Store | None = None
    meter = Meter()
    try:
        record = replace(describe(settings), started=record.started)
        log.info("%s, %s", record.model, label_of(record))
        store = _store_of(settings, record, folder.parent / "failures" if folder.parent.name == sweep else None)
        _keep(record, store, folder)
        with store.at_work(), meter, track(_run_spec(settings, store, record, sweep)) as tracker:
            _run_stages(settings, store, record, tracker)
        record.status = OK
        show_scores([record], store, title=label_of(record))
    except SharedFailure as error:
        record.status, record.error = SKIPPED, redact(str(error))
        log.error("skipped: %s", record.error)
    except (Exception, SystemExit) as error:
        record.status, record.error = FAILED, plain(error)
        log.error("failed: %s", record.error)
        with suppress(OSError):
            (folder / TRACEBACK).write_text(redact(traceback.format_exc()), encoding="utf-8")
    finally:
        record.seconds, record.spent = round(time.monotonic() - start, 2), meter.cost
        record.wandb = receipt_of(tracker)
        _keep(record, store, folder)
    return record


def _store_of(settings: Settings, record: JobRecord, failures: Path | None) -> Store:
    """The outputs folder as this job sees it: what it builds says where it comes from, and counts as its own."""
    record.origin = origin()
    store = Store(settings.outputs, failures=failures)
    store.origin = {"config": record.config, "origin": record.origin}
    store.on_built = lambda artifact: record.cost.update(
        {f"{artifact.stage}/{artifact.key}": dict(artifact.cost or {})}
    )
    return store


def _keep(record: JobRecord, store: Store | None, folder: Path) -> None:
    """Leave the record with the command's outcomes and with the jobs. Where nothing can be written, it says so."""
    try:
        record.write(folder / OUTCOME)
        if store is not None and record.job:
            with store.alone("records"):
                record.save(store)
    except OSError as error:
        log.error("the outcome of this job cannot be written: %s", error)


def _run_spec(settings: Settings, store: Store, record: JobRecord, sweep: str) -> RunSpec:
    return RunSpec(
        outputs=store.root,
        mode=settings.wandb.mode,
        project=settings.wandb.project,
        entity=settings.wandb.entity,
        name=f"{record.model} {label_of(record)}",
        group=sweep,
        job_type=record.pruner,
        tags=(record.model, record.pruner, f"sparsity {record.sparsity}", settings.task.name),
        config=record.config | {name: getattr(record, name) for name in ("variant_id", "settings_id", "job")},
    )


def describe(settings: Settings) -> JobRecord:
    """The record of a job that has not begun: who it is, and with which jobs it can be compared."""
    dtype = str(resolve_dtype(settings.dtype)).removeprefix("torch.")
    text = held_out(settings.perplexity)
    identity = identity_of(settings, dtype, None if text is None else text.identity())
    config = redacted(dict(settings.flat))
    model = settings.model.identity()
    return JobRecord(
        job=identity.job,
        settings=conditions_line(config, len(settings.probes), dtype, identity.settings_id),
        model=_short(settings.model.name),
        pruner=settings.pruner.name,
        sparsity=settings.sparsity.given,
        model_id=identity.model_id,
        model_revision=str(model.get("content") or model.get("revision") or "")[:12],
        variant_id=identity.variant_id,
        settings_id=identity.settings_id,
        base_id=identity.base_id,
        replicate=dict(identity.replicate),
        dtype=dtype,
        calibrated=settings.pruner.calibrated,
        unit=settings.pruner.unit,
        config=config,
    )


def _short(name: str) -> str:
    """The name of a model; of a directory its last part, since ids tell directories apart."""
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.is_dir() else name


def _run_stages(settings: Settings, store: Store, record: JobRecord, tracker: Tracker) -> None:
    bench = Workbench(settings, store)
    try:
        prepare(bench)
        for stage, make in STAGES.items():
            if stage in settings.stages:
                _run_stage(stage, partial(make, bench), store, record)
    finally:
        bench.release()
    _finish_records(bench, store, record)
    drawn = _run_plot(settings, store) if "plot" in settings.stages else []
    log_results(store, record, tracker, drawn)
    if settings.export is not None:
        write = EXPORTS[settings.export.format]
        write(bench, settings.export.path, record, scores_of(record, store), dense_scores(record, store))


def _run_stage(stage: str, make: Callable[[], Mapping[str, Artifact]], store: Store, record: JobRecord) -> None:
    start, before = time.monotonic(), len(record.cost)
    artifacts = make()
    fresh = dict.fromkeys(record.built[before:])
    record.artifacts |= {role: str(artifact.path.relative_to(store.root)) for role, artifact in artifacts.items()}
    what = f"{time.monotonic() - start:6.1f} s  ({', '.join(fresh)})" if fresh else "  found"
    log.info("  %-9s%s", stage, what)


def _finish_records(bench: Workbench, store: Store, record: JobRecord) -> None:
    """Make the job and its baseline visible to tables and figures, with what earlier runs of them have found."""
    if record.artifacts:
        record.artifacts["decision"] = str(bench.make(PruningDecision).path.relative_to(store.root))
    # Other jobs that end now change the same baseline and the same tables.
    with store.alone("records"):
        if earlier := find_record(store, record.job):
            record.artifacts = earlier.artifacts | record.artifacts
            # When its numbers were computed, not when they were found again.
            record.started = record.started if record.built else earlier.started
        if "decision" in record.artifacts:
            decision = Decision.load(store.root / record.artifacts["decision"])
            record.achieved = decision.achieved
            record.parameters, record.dense_parameters = decision.parameters, decision.dense_parameters
        _sign(record, store)
        replace(record, status=OK).save(store)
        if not bench.is_dense and "dense evaluation" in record.artifacts:
            _record_baseline(bench, store, record)
        collect(store)


def _sign(record: JobRecord, store: Store) -> None:
    """Say with what a job's results were computed, which an earlier version may have done; warn if it was another."""
    manifests = {role: read_sealed(store.root / path / MANIFEST) for role, path in record.artifacts.items()}
    record.origins = {role: dict(manifest.get("origin") or {}) for role, manifest in manifests.items()}
    record.origin = next((record.origins[role] for role in _SIGNING if role in record.origins), record.origin)
    if changed := changed_since(record.origins, origin()):
        log.warning("  %s", changed)


def _record_baseline(bench: Workbench, store: Store, record: JobRecord) -> None:
    baseline = describe(bench.dense.settings)
    known = find_record(store, baseline.job)
    if known is not None and known.status == OK and "evaluation" in known.artifacts:
        return
    baseline.status, baseline.achieved, baseline.started = OK, 0.0, record.started
    baseline.parameters = baseline.dense_parameters = record.dense_parameters
    shared = {key: value for key, value in baseline.config.items() if not key.startswith("pruner.")}
    baseline.config = shared | {"pruner.name": baseline.pruner, "sparsity": 0}
    baseline.artifacts = (known.artifacts if known else {}) | {
        "decision": str(bench.dense.make(PruningDecision).path.relative_to(store.root)),
        "evaluation": record.artifacts["dense evaluation"],
    }
    if "dense perplexity" in record.artifacts:
        baseline.artifacts["perplexity"] = record.artifacts["dense perplexity"]
    _sign(baseline, store)
    baseline.save(store)


def _run_plot(settings: Settings, store: Store) -> list[FigureResult]:
    """Draw what the tables have data for; this job is the newest, so that its settings are drawn."""
    # Drawing libraries take seconds to load, and most jobs of a sweep draw nothing.
    from pipeline.plot.drawing import draw

    start = time.monotonic()
    with store.alone("figures"):
        drawn = draw(store.root, settings.figures)
    log.info("  %-9s%6.1f s  (%d figures)", "plot", time.monotonic() - start, sum(not f.missing for f in drawn))
    return drawn
