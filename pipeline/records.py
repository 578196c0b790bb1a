"""What is kept of every job: a small JSON record that says where its results are, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.files import write_json
from pipeline.integrity import read_sealed, sealed
from pipeline.store import Store

log = logging.getLogger(__name__)
# Raise it when the tables behind a record change their columns: older records are then passed over, and their jobs
# make new ones when they are run again.
LAYOUT = 3
OK, FAILED, INTERRUPTED, SKIPPED = "ok", "failed", "interrupted", "skipped"


@dataclass
class JobRecord:
    """One job. ``artifacts`` maps a role (decision, evaluation, measures) to a path below the outputs folder.

    ``settings`` says under what its scores were had, ``states`` the same of its captured states: jobs with an equal
    line can be compared, task by task where the task was asked in the same way: ``asked``, by role. ``unit`` is
    what its pruner takes away, ``parameters`` what it leaves of the model's. ``cost`` says what each artifact that
    this job itself has built took, by stage and key, ``spent`` the same of the whole job: ``provenance.Meter``.
    ``origin`` is with which code, versions and machine.
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
    cost: dict[str, dict[str, Any]] = field(default_factory=dict)
    spent: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    wandb: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    layout: int = LAYOUT

    @property
    def built(self) -> list[str]:
        """The stages that this job itself has computed, one entry an artifact."""
        return [name.partition("/")[0] for name in self.cost]

    def save(self, store: Store) -> None:
        """Keep the record, unless that would put an unfinished job in the place of a finished one."""
        self.finished = now()
        path, earlier = store.jobs / f"{self.job}.json", find_record(store, self.job)
        if path.is_file() and earlier is None:
            store.set_aside(path, "its record is cut, edited or of another version")
        if self.status == OK or earlier is None or earlier.status != OK:
            self.write(path)

    def write(self, path: Path) -> None:
        write_json(path, sealed(asdict(self)))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def find_record(store: Store, job: str) -> JobRecord | None:
    """The record of a job, if there is one."""
    return next(iter(load_records(store.jobs, f"{job}.json")), None)


def load_records(folder: Path, pattern: str = "*.json") -> list[JobRecord]:
    """All intact records of a folder, oldest first. One of another layout is skipped, a damaged one with a warning."""
    records = []
    for path in folder.glob(pattern):
        try:
            facts = read_sealed(path)
            if facts.get("layout") == LAYOUT:
                records.append(_checked(facts))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError, AttributeError) as error:
            log.warning("the record %s is passed over: %s", path, error)
    return sorted(records, key=lambda record: record.finished)


def _checked(facts: Mapping[str, Any]) -> JobRecord:
    """A record whose paths stay below the outputs folder. Raises ValueError or TypeError for anything else."""
    record = JobRecord(**facts)
    for path in record.artifacts.values():
        parts = Path(path).parts
        if not parts or parts[0] != "store" or ".." in parts:
            raise ValueError(f"it names {path}, which is not in the store")
    return record
