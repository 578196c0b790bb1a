"""Records of jobs: a small JSON file for each job that says where its results are, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.common.files import write_json
from pipeline.store import older_records
from pipeline.store.artifacts import Store
from pipeline.store.integrity import read_sealed, sealed

log = logging.getLogger(__name__)
# Raise it when the fields of a record change, and teach ``older_records`` to read the layout before.
LAYOUT = 5
# Files that a job of a command leaves in its own folder.
OUTCOME, TRACEBACK = "outcome.json", "traceback.txt"
OK, FAILED, INTERRUPTED, SKIPPED = "ok", "failed", "interrupted", "skipped"

# Fields that say how a job was run last, and nothing about its results.
OF_A_RUN = ("finished", "seconds", "cost", "spent", "wandb")


@dataclass
class JobRecord:
    """One job. ``artifacts`` maps a role (decision, evaluation, measures) to a path below the outputs folder.

    The ids and ``replicate`` are those of ``pipeline.store.identity.Identity``; ``settings`` describes for people, in
    one line, how the job was evaluated and captured. ``calibrated`` says whether its pruner reads calibration text,
    ``unit`` names what it removes, ``parameters`` counts those that the model has left. ``changed`` names the options
    that differ from the files of their choices, as in ``pipeline.tables.labels.Facts``: those files may lie where a
    later command does not look. It is None in records of earlier layouts. ``cost`` is the cost of each
    artifact that this job itself built, by stage and key, ``spent`` that of the whole job: see ``provenance.Meter``.
    ``origin`` is the code, versions and machine that computed its scores (else its measures, its decision),
    ``origins`` the same for every artifact by its role, from their manifests.
    """

    job: str
    settings: str
    model: str
    pruner: str
    sparsity: str
    model_id: str = ""
    model_revision: str = ""
    variant_id: str = ""
    settings_id: str = ""
    base_id: str = ""
    replicate: dict[str, Any] = field(default_factory=dict)
    dtype: str = ""
    calibrated: bool = False
    unit: str = ""
    achieved: float | None = None
    parameters: int | None = None
    dense_parameters: int | None = None
    changed: list[str] | None = None
    status: str = INTERRUPTED
    error: str | None = None
    artifacts: dict[str, str] = field(default_factory=dict)
    cost: dict[str, dict[str, Any]] = field(default_factory=dict)
    spent: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    wandb: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    layout: int = LAYOUT

    @property
    def built(self) -> list[str]:
        """Stages that this job itself has computed, one entry per artifact."""
        return [name.partition("/")[0] for name in self.cost]

    @property
    def seed(self) -> int:
        return int(self.replicate.get("seed", 0))

    @property
    def repeats(self) -> str:
        """Key shared by all jobs that repeat this one with another seed or draw."""
        return f"{self.variant_id} {self.settings_id}"

    def save(self, store: Store) -> None:
        """Write the record, unless that would replace a finished job by an unfinished one."""
        self.finished = now()
        path, earlier = store.jobs / f"{self.job}.json", find_record(store, self.job)
        if path.is_file() and earlier is None:
            store.set_aside(path, "its record is truncated, edited or from another version")
        if self.status == OK or earlier is None or earlier.status != OK:
            self.write(path)

    def write(self, path: Path) -> None:
        write_json(path, sealed(asdict(self)))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def find_record(store: Store, job: str) -> JobRecord | None:
    """Return the record of a job, or None."""
    return next(iter(load_records(store.jobs, f"{job}.json")), None)


def dense_of(record: JobRecord, baselines: Iterable[JobRecord]) -> JobRecord | None:
    """Return the newest of these dense jobs with the model, settings and seed of this job, or None."""
    same = [
        job
        for job in baselines
        if (job.model_id, job.settings_id, job.seed) == (record.model_id, record.settings_id, record.seed)
    ]
    return same[-1] if same else None


def load_records(folder: Path, pattern: str = "*.json") -> list[JobRecord]:
    """Return all intact records of a folder, oldest first.

    Records of a later layout are skipped, damaged ones with a warning. A job that was run again since an earlier layout
    appears once, as it was run last.
    """
    records = []
    for path in folder.glob(pattern):
        try:
            facts = read_sealed(path)
            if facts.get("layout") == older_records.LAYOUT:
                facts = older_records.upgraded(facts, folder.parent)
            if facts.get("layout") in (older_records.LAYOUT, older_records.WITHOUT_CHANGED, LAYOUT):
                records.append(_checked(facts))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            log.warning("the record %s is skipped: %s", path, error)
    records.sort(key=lambda record: record.finished)
    again = {_who(record) for record in records if record.layout == LAYOUT}
    return [record for record in records if record.layout == LAYOUT or _who(record) not in again]


def _who(record: JobRecord) -> tuple[str, str, str]:
    return record.variant_id, record.settings_id, repr(sorted(record.replicate.items()))


def _checked(facts: Mapping[str, Any]) -> JobRecord:
    """Return a record whose paths stay below the outputs folder. Raises ValueError or TypeError for anything else."""
    record = JobRecord(**facts)
    for path in record.artifacts.values():
        parts = Path(path).parts
        if not parts or parts[0] != "store" or ".." in parts:
            raise ValueError(f"it refers to {path}, which is not in the store")
    return record
