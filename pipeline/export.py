"""Export: where a pruned model's checkpoint goes, and what is written beside it about the pruning."""

from __future__ import annotations

import json
import logging
import platform
import re
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.access import NoAccess, reading
from pipeline.config import Settings
from pipeline.console import plain_table
from pipeline.decoder import ATTENTION, MLP
from pipeline.files import write_json
from pipeline.pruners.decision import Decision
from pipeline.records import JobRecord
from pipeline.stages import Workbench

log = logging.getLogger(__name__)
FACTS, CARD = "pruning.json", "README.md"
# Characters of a folder's name before the job, so that there is room for a private name beside it.
_LONGEST = 120


def export_folder(settings: Settings, job: str) -> str:
    """The name of a job's export inside the folder of a sweep."""
    name = f"{settings.model.name}-{settings.pruner.name}-{settings.sparsity.given}"
    words = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[-_LONGEST:].strip("-.")
    return f"{words}-{job[:6]}"


def export(
    bench: Workbench, target: Path, record: JobRecord, scores: pd.DataFrame | None, dense: pd.DataFrame | None
) -> None:
    """Write the checkpoint, with its scores beside the dense model's; if it is there already, only these.

    Raises ValueError if something else is in its place.
    """
    start, known = time.monotonic(), exported(target)
    facts = _facts(bench, record)
    if known.get("decision_key") == facts["decision_key"]:
        _describe(target, facts | {"output_difference": known["output_difference"]}, scores, dense)
        log.info("  %-9s  found", "export")
        return
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"export={target} exists and is not this pruned model; give another folder or remove it")
    try:
        facts["encoder"] = bench.is_encoder
        bench.export(target, lambda folder, off: _describe(folder, facts | {"output_difference": off}, scores, dense))
    finally:
        bench.release()
    log.info("  %-9s%6.1f s  (%s)", "export", time.monotonic() - start, target)


def exported(folder: Path) -> dict[str, Any]:
    """The facts of an export; empty if the folder holds none. Raises NoAccess if that cannot be read."""
    try:
        with reading(folder / FACTS):
            facts = json.loads((folder / FACTS).read_text())
    except NoAccess:
        raise
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) and {"decision_key", "output_difference", "encoder"} <= facts.keys() else {}


def _facts(bench: Workbench, record: JobRecord) -> dict[str, Any]:
    settings, calibration = bench.settings, bench.settings.calibration
    source = f"{calibration.label}, seed {calibration.seed}"
    names = ("torch", "transformers", "lm-eval")
    return {
        "decision_key": bench.decision.key,
        "job": record.job,
        "model": record.model,
        "pruner": record.pruner,
        "sparsity": record.sparsity,
        "accepts": list(settings.pruner.accepts),
        "settings": record.settings,
        "calibration": source if settings.pruner.calibrated else None,
        "seed": settings.seed,
        "dtype": bench.dtype,
        "decision": Decision.load(bench.decision.path).facts(),
        "identity": {"model": settings.model.identity(), "pruner": settings.pruner.identity()},
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in names},
    }


def _describe(folder: Path, facts: Mapping[str, Any], scores: pd.DataFrame | None, dense: pd.DataFrame | None) -> None:
    known = exported(folder)
    write_json(folder / FACTS, {"encoder": known.get("encoder", False), **facts})
    (folder / CARD).write_text(model_card({"encoder": known.get("encoder", False), **facts}, scores, dense))


def model_card(facts: Mapping[str, Any], scores: pd.DataFrame | None, dense: pd.DataFrame | None) -> str:
    """The README of a checkpoint: what it is, what was removed, how it scores beside the dense model."""
    how = f"pruned by {facts['pruner']} at sparsity" if facts["accepts"] else f"changed by {facts['pruner']}, sparsity"
    title = f"{facts['model']} {how} {facts['sparsity']}"
    lines = ["---", "library_name: transformers", "tags: [pruned]", "---", f"# {title}", "", *_removed(facts), ""]
    loader = "AutoModel" if facts["encoder"] else "AutoModelForCausalLM"
    lines += ["```python", f"from transformers import {loader}, AutoTokenizer", ""]
    lines += [f'model = {loader}.from_pretrained("DIR", dtype="auto")', "```", ""]
    if scores is not None:
        lines += ["## Scores", "", _score_table(scores, dense), "", f"Settings: {facts['settings']}", ""]
    lines += [f"Everything else, with scores of all units and versions, is in `{FACTS}`.", ""]
    return "\n".join(lines)


def _removed(facts: Mapping[str, Any]) -> list[str]:
    decision = facts["decision"]
    options = {k: v for k, v in facts["identity"]["pruner"].items() if k not in ("type", "version")}
    lines = [f"{decision['achieved']:.1%} of the decoder blocks' parameters are removed or zero ({facts['dtype']})."]
    if options:
        lines.append(f"Options: {', '.join(f'{key}={value}' for key, value in options.items())}.")
    if decision["blocks"]:
        lines.append(f"Removed blocks of the dense model: {_numbers(decision['blocks'])}.")
    for kind in (ATTENTION, MLP):
        if decision[kind]:
            lines.append(
                f"Dropped {kind} sublayers: {_numbers(decision[kind])}. Their output projections are zero here, so "
                "they add nothing; a runtime that skips them is faster."
            )
    if facts["calibration"]:
        lines.append(f"Calibration: {facts['calibration']}.")
    return lines


def _numbers(layers: list[int]) -> str:
    return ", ".join(map(str, layers))


def _score_table(scores: pd.DataFrame, dense: pd.DataFrame | None) -> str:
    keys = ["task", "kind", "metric"]
    table = scores[[*keys, "value", "stderr", "n"]]
    if dense is not None:
        table = table.merge(dense[[*keys, "value"]].rename(columns={"value": "dense"}), on=keys, how="left")
    return plain_table(table)
