"""Record of a job: its identity before it begins, and what is published to tables and figures when it is done."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from pipeline.common.secrets import redacted
from pipeline.evaluate.perplexity import held_out
from pipeline.model.sources.base import resolve_dtype
from pipeline.model.special_tokens import in_words
from pipeline.prune.settings import Settings
from pipeline.prune.stage import PruningDecision
from pipeline.prune.workbench import Workbench
from pipeline.run.job_identity import identity_of
from pipeline.store.artifacts import Store
from pipeline.store.integrity import MANIFEST, read_sealed
from pipeline.store.origins import changed_since
from pipeline.store.provenance import origin
from pipeline.store.records import OK, JobRecord, find_record
from pipeline.tables.job_tables import JobTables
from pipeline.tables.labels import changed_options, conditions_line
from pipeline.tables.write import collect

log = logging.getLogger(__name__)
# Artifacts whose origin stands for all numbers of a job: the first of these that it has.
_SIGNING = ("evaluation", "measures", "decision")


def describe(settings: Settings, special_tokens: str = "") -> JobRecord:
    """Return the record of a job that has not begun: its identity, and with which jobs it can be compared.

    ``special_tokens`` names the special tokens in its text, once its tokenizer is known.
    """
    dtype = str(resolve_dtype(settings.dtype)).removeprefix("torch.")
    text = held_out(settings.perplexity)
    identity = identity_of(settings, dtype, None if text is None else text.identity())
    config = redacted(dict(settings.flat))
    model = settings.model.identity()
    return JobRecord(
        job=identity.job,
        settings=conditions_line(config, len(settings.probes), dtype, identity.settings_id, special_tokens),
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
        changed=changed_options(config),
        config=config,
    )


def _short(name: str) -> str:
    """Return the name of a model; of a directory its last part, since ids tell directories apart."""
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.is_dir() else name


def publish(bench: Workbench, record: JobRecord) -> JobTables:
    """Publish a job and its baseline to tables and figures, together with the results of their earlier runs.

    Returns the job's own tables.
    """
    store = bench.store
    if record.artifacts:
        record.artifacts["decision"] = str(bench.make(PruningDecision).path.relative_to(store.root))
    # Other jobs that end now change the same baseline and the same tables.
    with store.alone("records"):
        earlier = find_record(store, record.job)
        record.settings = _settings_line(bench, record, earlier)
        if earlier:
            record.artifacts = earlier.artifacts | record.artifacts
            # The time when its numbers were computed, not when they were found again.
            record.started = record.started if record.built else earlier.started
        _sign(record, store)
        tables = JobTables(record, store)
        decided(tables)
        # Before the job, as it will be where the job is found again: jobs stand in the order in which they have ended.
        if not bench.is_dense and "dense evaluation" in record.artifacts:
            _record_baseline(bench, record)
        replace(record, status=OK).save(store)
        collect(store, tables, found=not record.built)
    return tables


def _settings_line(bench: Workbench, record: JobRecord, earlier: JobRecord | None) -> str:
    """Return the line that describes how a job was evaluated, with the special tokens in its text.

    A job that has found everything has that of its earlier run: loading a tokenizer takes seconds.
    """
    if earlier is not None and earlier.status == OK and not record.built:
        return earlier.settings
    return describe(bench.settings, in_words(bench.tokenizer)).settings


def decided(tables: JobTables) -> None:
    """Record how much a job has removed, once that is decided."""
    if decision := tables.decision:
        record = tables.record
        record.achieved = decision["achieved"]
        record.parameters, record.dense_parameters = decision["parameters"], decision["dense_parameters"]


def _sign(record: JobRecord, store: Store) -> None:
    """Record the origins of a job's artifacts, which earlier versions may have built; warn if they differ from now."""
    manifests = {role: read_sealed(store.root / path / MANIFEST) for role, path in record.artifacts.items()}
    record.origins = {role: dict(manifest.get("origin") or {}) for role, manifest in manifests.items()}
    record.origin = next((record.origins[role] for role in _SIGNING if role in record.origins), record.origin)
    if changed := changed_since(record.origins, origin()):
        log.warning("  %s", changed)


def _record_baseline(bench: Workbench, record: JobRecord) -> None:
    store, baseline = bench.store, describe(bench.dense.settings)
    baseline.settings = record.settings
    known = find_record(store, baseline.job)
    if known is not None and known.status == OK and "evaluation" in known.artifacts:
        return
    baseline.status, baseline.achieved, baseline.started = OK, 0.0, record.started
    baseline.wandb = known.wandb if known else {}
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
