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
from pipeline.common.heartbeat import stage as begin_stage
from pipeline.common.heartbeat import working
from pipeline.common.secrets import redact
from pipeline.config.schema import HF, PLOT
from pipeline.evaluate.overlap import tell_overlap
from pipeline.evaluate.stage import evaluated, prepare
from pipeline.export import hf
from pipeline.measure.stage import measured
from pipeline.prune.settings import Settings
from pipeline.prune.stage import pruned
from pipeline.prune.workbench import Workbench
from pipeline.run.drawing_process import draw_figures, in_drawing_process
from pipeline.run.job_record import decided, describe, publish
from pipeline.run.room import check_memory
from pipeline.run.tracking import run_spec, track_dense, wanted_of
from pipeline.store.artifacts import Artifact, SharedFailure, Store
from pipeline.store.provenance import Meter, origin
from pipeline.store.records import FAILED, OK, OUTCOME, SKIPPED, TRACEBACK, JobRecord, find_record, now
from pipeline.tables.job_columns import label_of
from pipeline.tables.job_tables import JobTables
from pipeline.track import Tracker, track
from pipeline.track.job_log import Wanted, log_figures, log_results, receipt_of

if TYPE_CHECKING:
    from pipeline.plot.drawing import FigureResult

log = logging.getLogger(__name__)
# Stages that make artifacts, in order; each returns its artifacts by role. Drawing and logging come after.
STAGES: Mapping[str, Callable[[Workbench], Mapping[str, Artifact]]] = {
    "prune": pruned,
    "evaluate": evaluated,
    "capture": captured,
    "measure": measured,
}
EXPORTS = {HF: hf.export}


def run_job(settings: Settings, sweep: str, folder: Path) -> JobRecord:
    """Run the stages of one job. Never raises for a failing job: the record says how it ended.

    ``sweep`` names the command that the job belongs to. The outcome is written to ``folder`` at the start and at the
    end. An interruption passes, once it is recorded.
    """
    start = time.monotonic()
    record = JobRecord("", "", settings.model.name, settings.pruner.name, settings.sparsity.given, started=now())
    tracker: Tracker | None = None
    store: Store | None = None
    meter, several = Meter(), folder.parent.name == sweep
    try:
        record = replace(describe(settings), started=record.started)
        log.info("%s, %s", record.model, label_of(record))
        store = _store_of(settings, record, folder.parent / "failures" if several else None)
        # The run of an earlier job of this identity is resumed.
        record.wandb = dict(earlier.wandb) if (earlier := find_record(store, record.job)) else {}
        _keep(record, store, folder)
        wanted = wanted_of(record, several)
        with store.at_work(), meter, working(label_of(record)):
            with track(run_spec(record, store, sweep, several)) as tracker:
                bench = Workbench(settings, store)
                try:
                    _make(bench, record, tracker, wanted)
                finally:
                    bench.release()
                tables = publish(bench, record)
                _tell(bench, tables, tracker, wanted)
            if tracker.run is not None:
                track_dense(tables, store, sweep, several, tracker.receipt.mode)
        record.status = OK
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


def _make(bench: Workbench, record: JobRecord, tracker: Tracker, wanted: Wanted) -> None:
    """Make or find the artifacts of the chosen stages, and log what each of them has found."""
    prepare(bench)
    check_memory(bench)
    chosen = [stage for stage in STAGES if stage in bench.settings.stages]
    for place, stage in enumerate(chosen, start=1):
        start, before = time.monotonic(), len(record.cost)
        tracker.summary({"stage": stage})
        _run_stage(stage, partial(STAGES[stage], bench), bench.store, record)
        if len(record.cost) > before:
            tracker.history({"progress/stages": place / len(chosen), f"seconds/{stage}": time.monotonic() - start})
        if tracker.run is not None:
            tables = JobTables(record, bench.store)
            decided(tables)
            log_results(tables, tracker, wanted)


def _tell(bench: Workbench, tables: JobTables, tracker: Tracker, wanted: Wanted) -> None:
    """Draw, log and export the results."""
    settings = bench.settings
    drawn = _draw(settings, bench.store) if PLOT in settings.stages else []
    log_results(tables, tracker, wanted, last=True)
    log_figures(tracker, drawn)
    tracker.summary({"stage": "done"})
    if settings.export.path is not None:
        write, target = EXPORTS[settings.export.format], Path(settings.export.path).expanduser().absolute()
        write(bench, target, tables.record, tables.scores, tables.dense_scores)


def _run_stage(stage: str, make: Callable[[], Mapping[str, Artifact]], store: Store, record: JobRecord) -> None:
    start, before = time.monotonic(), len(record.cost)
    begin_stage(stage)
    artifacts = make()
    fresh = dict.fromkeys(record.built[before:])
    record.artifacts |= {role: str(artifact.path.relative_to(store.root)) for role, artifact in artifacts.items()}
    what = f"{time.monotonic() - start:6.1f} s  ({', '.join(fresh)})" if fresh else "  reused"
    log.info("  %-9s%s", stage, what)
    if "overlap" in artifacts:
        tell_overlap(artifacts["overlap"].path)


def _draw(settings: Settings, store: Store) -> list[FigureResult]:
    """Draw the figures that the tables have data for. This job is the newest, so its settings are drawn."""
    # Deferred: most jobs of a sweep draw nothing.
    from pipeline.plot.discovery import UnknownFigure

    start = time.monotonic()
    begin_stage(PLOT)
    try:
        with store.alone("figures"):
            drawn = in_drawing_process(draw_figures, store.root, settings.figures)
    except UnknownFigure as error:  # the folder of the user's own figures has changed since the job began
        log.warning("  no figure is drawn: %s", error)
        return []
    for figure in drawn:
        if figure.failed or (figure.missing and settings.figures.select):
            log.warning("  figure %s is not drawn: %s", figure.name, figure.missing)
    log.info("  %-9s%6.1f s  (%d figures)", "plot", time.monotonic() - start, sum(not f.missing for f in drawn))
    return drawn


def _store_of(settings: Settings, record: JobRecord, failures: Path | None) -> Store:
    """Return the store of the outputs folder, which gives what this job builds its origin and records the cost."""
    record.origin = origin()
    store = Store(settings.outputs, failures=failures)
    store.origin = {"config": record.config, "origin": record.origin}
    store.on_built = lambda artifact: record.cost.update(
        {f"{artifact.stage}/{artifact.key}": dict(artifact.cost or {})}
    )
    return store


def _keep(record: JobRecord, store: Store | None, folder: Path) -> None:
    """Write the record to the command's outcomes and to the jobs. An error of writing is logged, not raised."""
    try:
        record.write(folder / OUTCOME)
        if store is not None and record.job:
            with store.alone("records"):
                record.save(store)
    except OSError as error:
        log.error("the record of this job cannot be written: %s", error)
