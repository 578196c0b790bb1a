"""Export of a pruned model: its checkpoint, and the facts about the pruning that are written beside it."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.common.access import NoAccess, reading
from pipeline.common.files import write_bytes, write_json
from pipeline.config.sparsity import Sparsity
from pipeline.data.calibration.base import CalibrationSet
from pipeline.export.model_card import model_card
from pipeline.model.sources.source_card import CARD, FACTS
from pipeline.prune.base import Pruner
from pipeline.prune.checkpoint import Written
from pipeline.prune.decision import Decision, facts_of
from pipeline.prune.pruned_model import decision_of, is_encoder, write_pruned
from pipeline.prune.settings import Settings
from pipeline.prune.stage import PruningDecision
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Store
from pipeline.store.integrity import MANIFEST, read_sealed
from pipeline.store.origins import provenance
from pipeline.store.records import JobRecord

log = logging.getLogger(__name__)
# Facts that are known only once the file is written.
_OF_FILE = ("encoder", "output_difference", "blocks", "zero")
# The artifacts behind the scores of a card, by role.
_SCORED = ("evaluation", "perplexity", "dense evaluation", "dense perplexity")
# Characters of a folder's name before the job, which leaves room for a private name beside it.
_LONGEST = 120


def export_folder(settings: Settings, job: str) -> str:
    """Return the name of a job's export inside the folder of a sweep."""
    name = f"{settings.model.name}-{settings.pruner.name}-{settings.sparsity.given}"
    words = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[-_LONGEST:].strip("-.")
    return f"{words}-{job[:6]}"


def export(
    bench: Workbench, target: Path, record: JobRecord, scores: pd.DataFrame | None, dense: pd.DataFrame | None
) -> None:
    """Write the checkpoint, its facts and its model card; only facts and card if the checkpoint is there already.

    The card shows ``scores`` beside those of the dense model. Raises ValueError if something else is in the
    checkpoint's place.
    """
    start, known, facts = time.monotonic(), exported(target), _facts(bench, record)
    if known.get("decision_key") == facts["decision_key"]:
        write_facts(target, facts | {key: known[key] for key in _OF_FILE}, scores, dense)
        log.info("  %-9s  reused", "export")
        return
    check_free(target)
    encoder = is_encoder(bench)

    def describe(folder: Path, written: Written) -> None:
        write_facts(folder, facts | of_file(written, encoder), scores, dense)

    try:
        write_pruned(bench, target, describe)
    finally:
        bench.release()
    log.info("  %-9s%6.1f s  (%s)", "export", time.monotonic() - start, target)


def check_free(target: Path) -> None:
    """Raise ValueError if something is in the place of a checkpoint."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"export.path={target} exists and is not this pruned model; give another folder or remove it")


def of_file(written: Written, encoder: bool) -> dict[str, Any]:
    """Return the facts that are known only once the file is written."""
    return dict(zip(_OF_FILE, (encoder, written.difference, written.blocks, written.zero), strict=True))


def exported(folder: Path) -> dict[str, Any]:
    """Return the facts of an export; empty if the folder holds none. Raises NoAccess if they cannot be read."""
    try:
        with reading(folder / FACTS):
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except NoAccess:
        raise
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) and {"decision_key", *_OF_FILE} <= facts.keys() else {}


def _facts(bench: Workbench, record: JobRecord) -> dict[str, Any]:
    settings, made = bench.settings, bench.make(PruningDecision)
    pruner, sparsity, calibration = settings.pruner, settings.sparsity, settings.calibration
    return {
        "decision_key": made.key,
        "job": record.job,
        "model": record.model,
        "settings": record.settings,
        **facts_of_pruning(pruner, sparsity, calibration, settings.seed, decision_of(bench)),
        "dtype": bench.dtype,
        "source": settings.model.card(),
        "identity": {"model": settings.model.identity(), "pruner": pruner.identity()},
        "provenance": provenance({"decision": _origin(made.path)} | _origins(record, bench.store)),
    }


def facts_of_pruning(
    pruner: Pruner, sparsity: Sparsity, calibration: CalibrationSet | None, seed: int, decision: Decision
) -> dict[str, Any]:
    """Return what was done to a model, as plain values."""
    source = f"{calibration.label}, seed {calibration.seed}" if calibration and pruner.calibrated else None
    return {
        "pruner": pruner.name,
        "sparsity": sparsity.given,
        "accepts": list(pruner.accepts),
        "calibration": source,
        "seed": seed,
        "decision": decision.facts(),
        "changed": bool(decision.changes),
        "zeros": sum(facts_of(decision.changes, at)[1] for at in decision.changes if at not in decision.blocks),
    }


def _origins(record: JobRecord, store: Store) -> dict[str, Mapping[str, Any]]:
    """Return the origins of the scores on the card, which may have been computed earlier than now."""
    paths = {role: store.root / record.artifacts[role] for role in _SCORED if role in record.artifacts}
    return {role: _origin(path) for role, path in paths.items() if path.is_dir() and store.problem(path) is None}


def _origin(artifact: Path) -> Mapping[str, Any]:
    return read_sealed(artifact / MANIFEST).get("origin", {})


def write_facts(
    folder: Path, facts: Mapping[str, Any], scores: pd.DataFrame | None = None, dense: pd.DataFrame | None = None
) -> None:
    """Write the facts about a checkpoint and its model card into its folder."""
    write_json(folder / FACTS, facts)
    write_bytes(folder / CARD, model_card(facts, scores, dense).encode())
