"""One job from start to end: its stages inside one tracked run, its record, its failure."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from pipeline import figures, tables
from pipeline.config import Settings
from pipeline.export import export
from pipeline.generation import SAMPLE
from pipeline.job_log import dense_scores, log_results, receipt_of
from pipeline.measure import FREE_RUNNING, LAYER, OPTIONS, TEACHER_FORCED
from pipeline.models.base import resolve_dtype
from pipeline.pruners.decision import Decision
from pipeline.records import FAILED, OK, JobRecord, find_record, now
from pipeline.stages import Workbench
from pipeline.store import Artifact, Store, digest, write_json
from pipeline.summary import show_scores
from pipeline.sweep import OUTCOME, TRACEBACK
from pipeline.tables import scores_of
from pipeline.tracking import RunSpec, Tracker, track

log = logging.getLogger(__name__)


def run_job(settings: Settings, sweep: str, folder: Path) -> JobRecord:
    """Run the stages of one job. Never raises for a failing job: the record says how it ended.

    ``sweep`` names the command that the job belongs to, ``folder`` is where the outcome is left.
    """
    start, started = time.monotonic(), now()
    record = JobRecord("", "", "", settings.model.name, settings.pruner.name, settings.sparsity.given)
    tracker: Tracker | None = None
    store: Store | None = None
    log.info("%s, %s, sparsity %s", record.model, record.pruner, record.sparsity)
    try:
        store, record = Store(settings.outputs), describe(settings)
        record.started = started
        store.on_build = lambda stage: record.built.update({stage: 0.0})
        with track(_run_spec(settings, store, record, sweep)) as tracker:
            _run_stages(settings, store, record, tracker)
        record.status = OK
        show_scores([record], store, title=f"{record.pruner} at {record.sparsity}")
    except Exception as error:
        record.status, record.error = FAILED, _plain(error)
        log.error("failed: %s", record.error)
        (folder / TRACEBACK).write_text(traceback.format_exc())
    finally:
        record.seconds = round(time.monotonic() - start, 2)
        record.wandb = receipt_of(tracker)
        if store is not None and record.job:
            record.save(store)
        write_json(folder / OUTCOME, record.to_json())
    return record


def _run_spec(settings: Settings, store: Store, record: JobRecord, sweep: str) -> RunSpec:
    return RunSpec(
        outputs=store.root,
        mode=settings.wandb.mode,
        project=settings.wandb.project,
        entity=settings.wandb.entity,
        name=f"{record.model} {record.pruner} {record.sparsity}",
        group=sweep,
        job_type=record.pruner,
        tags=(record.model, record.pruner, f"sparsity {record.sparsity}", settings.task.name),
        config=dict(settings.flat),
    )


def describe(settings: Settings) -> JobRecord:
    """The record of a job that has not begun: who it is, and with which jobs it can be compared."""
    model, task, calibration, capture = settings.model, settings.task, settings.calibration, settings.capture
    dtype = str(resolve_dtype(settings.dtype)).removeprefix("torch.")
    pruning = {"calibration": calibration.identity(), "seed": settings.seed, "dtype": dtype}
    # Which protocols and temperatures there are does not change what each of them measures.
    idle = {"protocols"} if capture.decoding == SAMPLE else {"protocols", "temperature"}
    captured = {
        "probes": [asdict(probe) for probe in settings.probes],
        "capture": {key: value for key, value in vars(capture).items() if key not in idle},
        "readout": settings.measure.readout,
    }
    states = pruning | captured
    # The same with other models: all but the first part of a line is equal.
    name = f"{model.name} #{digest(model.identity())[:4]}"
    how = f"{calibration.name} {calibration.sequences}×{calibration.length} · seed {settings.seed} · {dtype}"
    steps = f"{len(settings.probes)} prompts, {capture.steps} steps, {capture.decoding}"
    mine = {"pruner": settings.pruner.identity(), "sparsity": settings.sparsity.given, "model": model.identity()}
    chosen = {
        "protocols": capture.protocols,
        "temperatures": settings.measure.temperatures,
        "task": task.identity(),
        "perplexity": vars(settings.perplexity),
    }
    return JobRecord(
        job=digest(states | mine | chosen),
        settings=f"{name} · {how} · #{digest(pruning)[:4]}",
        states=f"{name} · {steps} · {how}, {capture.dtype} · #{digest(states)[:4]}",
        model=model.name,
        pruner=settings.pruner.name,
        sparsity=settings.sparsity.given,
        asked=_asked(settings),
        unit=settings.pruner.unit,
        config=dict(settings.flat),
    )


def _asked(settings: Settings) -> dict[str, str]:
    """How the tasks and the held-out text are asked, by the role of what comes of it."""
    task, text = settings.task, settings.perplexity
    conditions = task.conditions()
    embedding = {} if task.writes_text else {"embedding": settings.model.embedding}
    limit = "all items" if task.limit is None else f"{task.limit} items"
    scores = f"{limit} #{digest(conditions | embedding)[:4]}"
    states = f"#{digest(conditions | {'limit': None})[:4]}"
    perplexity = f"{text.tokens} tokens #{digest(vars(text))[:4]}"
    return {"evaluation": scores, "comparison": scores, "perplexity": perplexity, "option measures": states}


def _run_stages(settings: Settings, store: Store, record: JobRecord, tracker: Tracker) -> None:
    bench = Workbench(settings, store)
    steps: dict[str, Callable[[], Mapping[str, Artifact]]] = {
        "prune": lambda: {"decision": bench.decision},
        "evaluate": lambda: _evaluated(bench),
        "capture": lambda: _captured(bench),
        "measure": lambda: _measured(bench),
    }
    try:
        if "evaluate" in settings.stages:
            bench.prepare()
        for stage, make in steps.items():
            if stage in settings.stages:
                _run_stage(stage, make, store, record)
    finally:
        bench.release()
    _finish_records(bench, store, record)
    drawn = _run_plot(settings, store) if "plot" in settings.stages else []
    log_results(store, record, tracker, drawn)
    if settings.export is not None:
        export(bench, settings.export, record, scores_of(record, store), dense_scores(record, store))


def _evaluated(bench: Workbench) -> dict[str, Artifact]:
    """Scores and perplexity, those of the dense model, and the two side by side."""
    artifacts = {"dense evaluation": bench.dense.evaluation, "evaluation": bench.evaluation}
    if bench.dense.perplexity and bench.perplexity:
        artifacts |= {"dense perplexity": bench.dense.perplexity, "perplexity": bench.perplexity}
    return artifacts if bench.is_dense else artifacts | {"comparison": bench.comparison}


def _measured(bench: Workbench) -> dict[str, Artifact]:
    """Measures under the protocols; the dense model has none."""
    if bench.is_dense:
        return {}
    options = OPTIONS in bench.settings.capture.protocols
    return {"measures": bench.measures} | ({"option measures": bench.option_measures} if options else {})


def _captured(bench: Workbench) -> dict[str, Artifact]:
    """What the protocols need: the dense trajectory, and the pruned model's part in each of them."""
    protocols = bench.settings.capture.protocols
    artifacts = {"dense trajectory": bench.dense.trajectory}
    if OPTIONS in protocols:
        artifacts["dense options"] = bench.dense.options
    if bench.is_dense:
        return artifacts
    if FREE_RUNNING in protocols:
        artifacts["trajectory"] = bench.trajectory
    if TEACHER_FORCED in protocols:
        artifacts["teacher forced"] = bench.forced
    if OPTIONS in protocols:
        artifacts["options"] = bench.options
    # Last, since it needs the dense model in the place of the pruned one.
    if LAYER in protocols and (counterparts := bench.counterparts):
        artifacts["counterparts"] = counterparts
    return artifacts


def _run_stage(stage: str, make: Callable[[], Mapping[str, Artifact]], store: Store, record: JobRecord) -> None:
    start, before = time.monotonic(), set(record.built)
    artifacts = make()
    fresh = [name for name in record.built if name not in before]
    for name in fresh:
        record.built[name] = round(time.monotonic() - start, 2)
    record.artifacts |= {role: str(artifact.path.relative_to(store.root)) for role, artifact in artifacts.items()}
    what = f"{time.monotonic() - start:6.1f} s  ({', '.join(fresh)})" if fresh else "  found"
    log.info("  %-9s%s", stage, what)


def _finish_records(bench: Workbench, store: Store, record: JobRecord) -> None:
    """Make the job and its baseline visible to tables and figures, with what earlier runs of them have found."""
    if record.artifacts:
        record.artifacts["decision"] = str(bench.decision.path.relative_to(store.root))
    if earlier := find_record(store, record.job):
        record.artifacts = earlier.artifacts | record.artifacts
    if "decision" in record.artifacts:
        decision = Decision.load(store.root / record.artifacts["decision"])
        record.achieved = decision.achieved
        record.parameters, record.dense_parameters = decision.parameters, decision.dense_parameters
    replace(record, status=OK).save(store)
    if not bench.is_dense and "dense evaluation" in record.artifacts:
        _record_baseline(bench, store, record)
    tables.collect(store)


def _record_baseline(bench: Workbench, store: Store, record: JobRecord) -> None:
    baseline = describe(bench.dense.settings)
    known = find_record(store, baseline.job)
    if known is not None and known.status == OK and "evaluation" in known.artifacts:
        return
    baseline.status, baseline.achieved, baseline.started = OK, 0.0, record.started
    baseline.parameters = baseline.dense_parameters = record.dense_parameters
    baseline.config |= {"pruner.name": baseline.pruner, "sparsity": 0}
    baseline.artifacts = (known.artifacts if known else {}) | {
        "decision": str(bench.dense.decision.path.relative_to(store.root)),
        "evaluation": record.artifacts["dense evaluation"],
    }
    if "dense perplexity" in record.artifacts:
        baseline.artifacts["perplexity"] = record.artifacts["dense perplexity"]
    baseline.save(store)


def _run_plot(settings: Settings, store: Store) -> list[figures.FigureResult]:
    """Draw what the tables have data for; this job is the newest, so that its settings are drawn."""
    start = time.monotonic()
    drawn = figures.draw(store.root, settings.figures)
    log.info("  %-9s%6.1f s  (%d figures)", "plot", time.monotonic() - start, sum(not f.missing for f in drawn))
    return drawn


def _plain(error: Exception) -> str:
    """One line: our own errors are sentences, others get their type."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
