"""Whether the jobs of a command will probably find all their results, which decides what is imported for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from pipeline.store.records import OK, OUTCOME, load_records

# Hydra leaves the overrides of a job here.
_OVERRIDES = Path(".hydra", "overrides.yaml")
# How many earlier commands are looked through, newest first.
_COMMANDS = 10


def finished_before(folder: Path, jobs: Sequence[Sequence[str]]) -> bool:
    """Return whether earlier commands beside the one in ``folder`` have finished jobs with each of these overrides.

    A change of code or of files since then may make them compute again. That costs time only: what they need and does
    not come with their process is then imported by each of them.
    """
    missing = {frozenset(overrides) for overrides in jobs}
    earlier = sorted((path for path in folder.parent.glob("*/") if path.name != folder.name), reverse=True)
    for command in earlier[:_COMMANDS]:
        missing.difference_update(_finished(command))
        if not missing:
            return True
    return not missing


def _finished(command: Path) -> Iterator[frozenset[str]]:
    """Yield the overrides of each job of a command that ended well."""
    # A single job leaves its files in the folder of its command.
    for path in (*command.glob(OUTCOME), *command.glob(f"*/{OUTCOME}")):
        if any(record.status == OK for record in load_records(path.parent, OUTCOME)):
            try:
                yield frozenset(yaml.safe_load((path.parent / _OVERRIDES).read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError, yaml.YAMLError):
                continue
