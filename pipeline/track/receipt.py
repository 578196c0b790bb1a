"""Outcome of a run, and what an earlier run of the same id has logged already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# wandb itself leaves a file `run-….wandb.synced` beside the log of a run that the server has taken.
SYNCED = "*.wandb.synced"


@dataclass(frozen=True)
class Receipt:
    """Outcome of a run.

    `group` is the sweep by which W&B finds it. `directory` holds its files, `url` is set online, and `sync_command`
    sends a run that is only on disk. `verified` says whether the finished run was read back complete (None when
    disabled); if it was not, `problem` says what is wrong. `logged` names the sections that are in the run, each with
    the artifacts that it was logged from.
    """

    run_id: str
    group: str
    directory: Path | None
    mode: str
    url: str | None
    exit_code: int
    verified: bool | None
    problem: str | None
    sync_command: str | None
    logged: Mapping[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return what a job's record keeps of its run."""
        facts = {**asdict(self), "directory": str(self.directory) if self.directory else None}
        return {"id": facts.pop("run_id"), "sync": facts.pop("sync_command"), **facts}


def logged_before(facts: Mapping[str, Any], run_id: str, mode: str) -> dict[str, str]:
    """Return the sections that the run of this id has from an earlier job, according to the ``facts`` of its receipt.

    There are none where the earlier part is incomplete or lost, or where a run that is now online was offline and has
    not been sent.
    """
    if facts.get("id") != run_id or not facts.get("verified") or not facts.get("directory"):
        return {}
    folder = Path(facts["directory"])
    here = not facts.get("sync")
    if not here:
        here = any(folder.glob(SYNCED)) or (mode == "offline" and any(folder.glob("*.wandb")))
    return dict(facts.get("logged") or {}) if here else {}
