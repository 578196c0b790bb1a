"""Finished jobs of an output folder that a finding is read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.config.choices import CONF, read_choice
from pipeline.config.schema import flatten
from pipeline.store.artifacts import Store
from pipeline.store.records import OK, JobRecord, load_records
from pipeline.study.findings.source import NoResults
from pipeline.tables.labels import changed_options


def default_conditions() -> dict[str, Any]:
    """Return the configuration of a job that only names pruner and sparsity, as far as it decides the numbers."""
    root = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    plain = {key: root[key] for key in ("seed", "capture", "measure", "perplexity")} | {
        "model": {"name": "smollm2"},
        "task": read_choice("task", "matched"),
    }
    return {key: value for key, value in flatten(plain).items() if not str(value).startswith("${")}


def jobs_of(
    store: Store, conditions: Mapping[str, Any], wanted: Sequence[tuple[str, str]], command: str
) -> list[JobRecord]:
    """Return the finished jobs of these pruners and sparsities, in order; those under one settings id, the newest.

    Raises NoResults, which names the command, if some are missing.
    """
    there: dict[str, dict[tuple[str, str], JobRecord]] = {}
    for record in load_records(store.jobs):
        told = all(record.config.get(key) == value for key, value in conditions.items())
        if record.status == OK and told and not changed_options(record.config):
            # Moved to the end: the settings of the newest job come last.
            group = there.pop(record.settings_id, {})
            there[record.settings_id] = group | {(record.pruner, record.sparsity): record}
    complete = [group for group in there.values() if set(wanted) <= set(group)]
    if not complete:
        named = ", ".join(" ".join(each) for each in wanted)
        raise NoResults(f"{store.root} has not all of these jobs, {named}; run `{command}` first")
    return [complete[-1][key] for key in wanted]
