"""Commands that ran the jobs of the page, as they were typed, from what Hydra leaves in the folder of each run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.common.secrets import redact
from pipeline.store.records import OUTCOME, load_records

MAIN = "python -m pipeline.main"
SWEEP, JOB = "multirun.yaml", Path(".hydra", "hydra.yaml")
CHANGE_NO_NUMBER = ("outputs=", "wandb.", "hydra.", "hydra/")


def commands_of(runs: Path, jobs: set[str]) -> list[str]:
    """Return the commands that ran these jobs last, oldest first, without settings that change no number.

    Args:
        runs: the folder of all runs; where it or a run is gone, so is the command.
        jobs: ids of jobs.
    """
    newest: dict[str, Path] = {}
    for path in sorted(runs.glob(f"**/{OUTCOME}")):
        for record in load_records(path.parent, OUTCOME):
            if record.job in jobs:
                newest[record.job] = path.parent
    return list(dict.fromkeys(text for folder in sorted(set(newest.values())) for text in _commands(folder)))


def _commands(folder: Path) -> Iterator[str]:
    """Yield the command of a job's folder, or nothing where Hydra's files are gone or damaged."""
    sweep = folder.parent / SWEEP
    path = sweep if sweep.is_file() else folder / JOB
    try:
        hydra: Any = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]
        words = [str(word) for word in hydra["overrides"]["task"]]
        own = [f"--config-dir={one['path']}" for one in _sources(hydra) if one["provider"] == "command-line"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return
    given = [word for word in words if not word.startswith(CHANGE_NO_NUMBER)]
    flags = [*own, *(["-m"] if path == sweep else [])]
    yield redact(" ".join([MAIN, *map(shlex.quote, [*flags, *given])]))


def _sources(hydra: Any) -> list[dict[str, Any]]:
    return hydra.get("runtime", {}).get("config_sources", [])
