"""Records of an earlier layout, read in today's form: the identity of a job is taken from its artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config.probes import read_probes
from pipeline.config.schema import flatten
from pipeline.store.identity import FULL_PRECISION, SAMPLE, identify
from pipeline.store.integrity import MANIFEST, read_sealed

LAYOUT = 3
# The layout after it, which lacks the names of changed options and nothing else.
WITHOUT_CHANGED = 4
# Fields that records no longer have.
_GONE = ("states", "asked")
_CAPTURE, _MEASURE = (
    ("steps", "protocols", "decoding", "temperature", "option_items", "dtype"),
    ("temperatures", "readout"),
)


def upgraded(facts: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return the facts of a record of the earlier layout with today's fields; ``root`` is its outputs folder.

    What its artifacts' manifests do not say, such as the tasks of a job that never evaluated, comes from its
    configuration; its ids are then shared with no other job.
    """
    config = facts["config"]
    made = {role: _inputs(root / path) for role, path in facts["artifacts"].items()}
    decision = made.get("decision", {})
    pruner = dict(decision.get("pruner") or _group(config, "pruner"))
    draw = pruner.pop("draw", None)
    seed = decision.get("seed", config.get("seed", 0))
    variant = {
        "model": decision.get("model") or _group(config, "model"),
        "pruner": pruner,
        "sparsity": facts["sparsity"],
        "calibration": _seedless(decision.get("calibration")),
    }
    dtype = decision.get("dtype", config.get("dtype", "auto"))
    replicate = {"seed": seed} | ({} if draw is None else {"pruner.draw": draw})
    identity = identify(variant, _conditions(config, made, dtype), replicate)
    kept = {name: value for name, value in facts.items() if name not in _GONE}
    return kept | {
        "pruner": str(config.get("pruner.name", facts["pruner"])),
        "model_id": identity.model_id,
        "model_revision": str(variant["model"].get("content") or variant["model"].get("revision") or "")[:12],
        "variant_id": identity.variant_id,
        "settings_id": identity.settings_id,
        "base_id": identity.base_id,
        "replicate": dict(identity.replicate),
        "dtype": dtype,
        "calibrated": "calibration" in decision,
    }


def _conditions(config: Mapping[str, Any], made: Mapping[str, Mapping[str, Any]], dtype: str) -> dict[str, Any]:
    """Return the facts of ``pipeline.run.job_identity.conditions_of``, as far as they are known."""
    capture = {name: config.get(f"capture.{name}") for name in _CAPTURE}
    if capture["decoding"] != SAMPLE:
        del capture["temperature"]
    options = made.get("options", made.get("dense options", {}))
    task = made.get("evaluation", {}).get("task") or options.get("task") or _group(config, "task")
    sizes = {group: config.get(f"{group}.batch_size") for group in ("task", "calibration")}
    trajectory = made.get("dense trajectory", made.get("trajectory", {}))
    return {
        "task": task,
        "embedding": made.get("evaluation", {}).get("embedding"),
        "dtype": dtype,
        "batch_sizes": {} if dtype in FULL_PRECISION else sizes,
        "capture": capture,
        "probes": trajectory.get("probes") or _probes(config.get("probes")),
        "measure": {name: config.get(f"measure.{name}") for name in _MEASURE},
        "perplexity": made.get("perplexity", {}).get("text"),
    }


def _probes(path: str | None) -> Any:
    """Return the prompts of a job that captured none: those of its file, or its path if that can no longer be read."""
    try:
        return [asdict(probe) for probe in read_probes(path)]
    except ValueError:
        return path


def _inputs(artifact: Path) -> dict[str, Any]:
    try:
        found = read_sealed(artifact / MANIFEST).get("inputs")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _group(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Return the settings of a component in the flat configuration, without its name."""
    prefix = f"{group}."
    return {
        key.removeprefix(prefix): value
        for key, value in flatten(config).items()
        if key.startswith(prefix) and key != f"{prefix}name"
    }


def _seedless(calibration: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if calibration is None else {name: value for name, value in calibration.items() if name != "seed"}
