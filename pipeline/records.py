"""What is kept of every job: a small JSON record that says where its results are, and how it ended."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.store import Store, write_json

# Raise it when the tables behind a record change their columns: older records are then passed over, and their jobs
# make new ones when they are run again.
LAYOUT = 2
OK, FAILED, INTERRUPTED = "ok", "failed", "interrupted"


@dataclass
class JobRecord:
    """One job. ``artifacts`` maps a role (decision, evaluation, measures) to a path below the outputs folder.

    ``settings`` says under what its scores were had, ``states`` the same of its captured states: jobs with an equal
    line can be compared, task by task where the task was asked in the same way: ``asked``, by role. ``unit`` is
    what its pruner takes away, ``parameters`` what it leaves of the model's.
    """

    job: str
    settings: str
    states: str
    model: str
    pruner: str
    sparsity: str
    asked: dict[str, str] = field(default_factory=dict)
    unit: str = ""
    achieved: float | None = None
    parameters: int | None = None
    dense_parameters: int | None = None
    status: str = INTERRUPTED
    error: str | None = None
    artifacts: dict[str, str] = field(default_factory=dict)
    built: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    wandb: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    layout: int = LAYOUT

    def save(self, store: Store) -> None:
        """Keep the record, unless that would put an unfinished job in the place of a finished one."""
        self.finished = now()
        earlier = find_record(store, self.job)
        if self.status == OK or earlier is None or earlier.status != OK:
            write_json(store.jobs / f"{self.job}.json", asdict(self))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def find_record(store: Store, job: str) -> JobRecord | None:
    """The record of a job, if there is one."""
    return next(iter(load_records(store.jobs, f"{job}.json")), None)


def load_records(folder: Path, pattern: str = "*.json") -> list[JobRecord]:
    """All readable records of a folder, oldest first. A half-readable file, or one of another layout, is skipped."""
    records = []
    for path in folder.glob(pattern):
        try:
            facts = json.loads(path.read_text())
            if facts.get("layout") == LAYOUT:
                records.append(JobRecord(**facts))
        except (OSError, ValueError, TypeError, AttributeError):
            continue
    return sorted(records, key=lambda record: record.finished)
