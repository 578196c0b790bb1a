"""``--dry-run``: the jobs of a command line, what each would reuse and compute, and how long that took before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Self

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from pipeline.common.heartbeat import in_words
from pipeline.common.terminal import show_table
from pipeline.config.by_name import VERSION_BASE
from pipeline.config.experiment import GRIDS, each_job
from pipeline.config.search_path import CONF, searched
from pipeline.prune.decision import Decision
from pipeline.prune.settings import Settings
from pipeline.prune.stage import PruningDecision
from pipeline.prune.workbench import OfJob, Workbench
from pipeline.run.compose import resolve
from pipeline.run.job import STAGES
from pipeline.run.job_record import describe
from pipeline.run.plan_memory import MemoryPlan
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.integrity import digest
from pipeline.store.records import JobRecord, load_records
from pipeline.tables.job_columns import label_of

REUSE, SHARED, COMPUTE, NOT_ASKED = "reuse", "as above", "compute", "–"
# Earlier costs as (stage, pruner or "" for any): seconds of each artifact.
Costs = Mapping[tuple[str, str], Sequence[float]]


class _Missing(Exception):
    """Raised in the place of building an artifact that is not in the store."""

    def __init__(self, stage: str, key: str) -> None:
        super().__init__(stage)
        self.stage, self.key = stage, key


class _Reading(Store):
    """A store that builds nothing."""

    def ensure(self, stage: str, inputs: Mapping[str, object], build: Callable[[Path], None]) -> Artifact:
        if found := self.find(stage, inputs):
            return found
        raise _Missing(stage, digest({"stage": stage, **inputs}))


@dataclass
class _Planner(Workbench):
    """A workbench that notes what it would have to build. ``scratch`` is for stand-ins of decisions."""

    needed: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    scratch: Path = Path()

    def make(self, stage: OfJob) -> Artifact:
        if stage not in self._made:
            own = stage(self)
            try:
                self._made[stage] = own.make(self.store)
            except _Missing as missing:
                # A key that depends on what is not there, such as a model still to be converted, is not known.
                key = missing.key if missing.stage == own.name else digest({"of": repr(self.settings)})
                path = self._decision(key) if stage is PruningDecision else self.store.path(own.name, key)
                self._made[stage] = self.needed[own.name, key] = Artifact(path, own.name, key)
        return self._made[stage]

    def find(self, stage: OfJob) -> Artifact | None:
        return self.make(stage)

    @property
    def dense(self) -> Self:
        found = super().dense
        found.needed, found.scratch = self.needed, self.scratch
        return found

    def _decision(self, key: str) -> Path:
        """Write a decision that says what the plan has to know: whether whole units go, or weights change."""
        path = self.scratch / key
        path.mkdir(parents=True, exist_ok=True)
        units = self.settings.pruner.unit not in ("", "weight")
        Decision(blocks=(0,) if units else ()).save(path)
        return path


def show_plan(overrides: Sequence[str]) -> int:
    """Print a line for each job of a command line that was checked, and the memory that it takes.

    Nothing is computed or written. Returns 2 if a job cannot fit into the machine's memory, else 0.
    """
    rows, seen, seconds, unknown, memory = [], set[tuple[str, str]](), 0.0, set[str](), MemoryPlan()
    records: list[JobRecord] | None = None
    settings: Settings | None = None
    for number, job in enumerate(jobs_of(overrides)):
        settings = _settings(job)
        records = load_records(settings.outputs / "jobs") if records is None else records
        costs = _costs(records, describe(settings).model_id)
        cells, new = _cells(settings, seen, memory)
        known, without = _estimate(new, costs, settings.pruner.name)
        seconds, unknown = seconds + known, unknown | without
        record = describe(settings)
        time = f"{'≥ ' if without and known else ''}{in_words(known)}" if known else "?" if without else ""
        rows.append([str(number), record.model, label_of(record), settings.task.name, *cells, time])
    show_table("Plan", ["job", "model", "variant", "task", *STAGES, "time"], rows, _note(rows, seconds, unknown))
    if settings is not None:
        memory.show()
        print(f"nothing was computed or written; results would go to {settings.outputs}")
    for problem in memory.problems:
        print(problem, file=sys.stderr)
    return 2 if memory.problems else 0


def jobs_of(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job of a command line, as the sweep would run them."""
    own = [word for word in overrides if not word.startswith(("hydra.", "hydra/"))]
    ((*listed,),) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(own), None)
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        base = compose("config", overrides=[*listed[0], *searched()])
    experiment: Any = OmegaConf.to_container(OmegaConf.masked_copy(base, [*GRIDS]))
    return [each for job in listed for each in each_job(job, experiment, str(base.pruner.name))]


def _settings(job: Sequence[str]) -> Settings:
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        return resolve(compose("config", overrides=[*job, *searched()]))


def _cells(settings: Settings, seen: set[tuple[str, str]], memory: MemoryPlan) -> tuple[list[str], list[str]]:
    """Return a word for each stage, and the stages of the artifacts that no job before this one would build.

    What the job takes is added to ``memory``.
    """
    cells, new = [], []
    with TemporaryDirectory() as scratch:
        bench = _Planner(settings, _Reading(settings.outputs), scratch=Path(scratch))
        for stage, make in STAGES.items():
            if stage not in settings.stages:
                cells.append(NOT_ASKED)
                continue
            before = set(bench.needed)
            make(bench)
            needed = set(bench.needed) - before
            fresh = needed - seen
            cells.append(COMPUTE if fresh else SHARED if needed else REUSE)
            new += [name for name, _ in fresh]
            seen |= fresh
        works = {stage for stage, cell in zip(STAGES, cells, strict=True) if cell in (COMPUTE, SHARED)}
        memory.add(bench, "evaluate" in works, bool({"capture", "measure"} & works))
    return cells, new


def _costs(records: Sequence[JobRecord], model_id: str) -> Costs:
    """Return the seconds that artifacts of a model took in earlier jobs, by stage, for each pruner and for all."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        if record.model_id != model_id:
            continue
        for name, cost in record.cost.items():
            for pruner in (record.pruner, ""):
                found.setdefault((name.partition("/")[0], pruner), []).append(float(cost["seconds"]))
    return found


def _estimate(stages: Sequence[str], costs: Costs, pruner: str) -> tuple[float, set[str]]:
    """Return the seconds that artifacts of these stages took before, and the stages of which nothing is known.

    A decision is only as expensive as those of its own pruner.
    """
    seconds, unknown = 0.0, set()
    for stage in stages:
        own = costs.get((stage, pruner)) or ([] if stage == PruningDecision.name else costs.get((stage, "")))
        if own:
            seconds += median(own)
        else:
            unknown.add(f"{stage} of {pruner}" if stage == PruningDecision.name else stage)
    return seconds, unknown


def _note(rows: Sequence[Sequence[str]], seconds: float, unknown: set[str]) -> str:
    idle = sum(not {COMPUTE, SHARED} & set(row) for row in rows)
    said = [f"{len(rows)} job{'s' * (len(rows) != 1)}, of which {idle} would reuse everything."]
    if seconds:
        said.append(f"About {in_words(seconds)} one after another, judging by earlier jobs in the same outputs.")
    if unknown and not seconds:
        said.append("No earlier job tells how long it would take.")
    elif unknown:
        said.append(f"Not in this time, since no earlier job did it: {', '.join(sorted(unknown))}.")
    return " ".join(said)
