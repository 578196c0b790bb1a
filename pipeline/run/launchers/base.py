"""Base of all launchers: the jobs of a sweep, and an outcome for each of them, however it ends."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from pipeline.common.heartbeat import in_words
from pipeline.config.objective import objectives
from pipeline.run.compose import job, unstarted
from pipeline.run.sweep import Outcome, SweepSummary, line_of, name_of, own_seconds
from pipeline.store.records import OK, SKIPPED, JobRecord

log = logging.getLogger(__name__)
# Number of configurations that are kept for their jobs: each takes about half a megabyte.
_KEPT = 100


class CannotRun(Exception):
    """Raised if none of the jobs can be run as asked; the message is a sentence that names the remedy."""


@dataclass(frozen=True)
class SweepJob:
    """Job of a sweep: its number and its overrides."""

    number: int
    overrides: tuple[str, ...]


def _varied(jobs: Sequence[SweepJob]) -> set[str]:
    """Return the keys besides pruner and sparsity in which the jobs of a sweep differ."""
    words = {word for job in jobs for word in job.overrides}
    keys = Counter(word.partition("=")[0] for word in words)
    return {key for key, count in keys.items() if count > 1} - {"pruner", "sparsity", "model"}


class SweepLauncher(Launcher):
    """Base class of launchers, which implement `run_jobs` and call `ended` once for each job.

    Whatever they raise, jobs without an outcome count as skipped, and the sweep closes with all outcomes.
    """

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Hydra's own launchers return what the task function returns; these need the record, and compute that from it.
        self.hydra_context, self.task_function, self.config = hydra_context, job, config
        self._outcomes: dict[int, Outcome] = {}
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        # How many jobs run at once; None where somebody else decides.
        self.at_once: int | None = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs. Raises `Stopped` if the sweep was asked to stop, after the outcomes were collected."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        self.folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        jobs = [SweepJob(number, tuple(overrides)) for number, overrides in enumerate(job_overrides, initial_job_idx)]
        # A sweeper that chooses its jobs launches some, looks at them, and launches more.
        self._count, self._varied = len(self._outcomes) + len(jobs), _varied(jobs)
        try:
            self.run_jobs(jobs)
        finally:
            for job in jobs:
                if job.number not in self._outcomes:
                    never = replace(self._named(job), status=SKIPPED, error="the sweep was stopped before it began")
                    self.ended(job, never)
            SweepSummary.outcomes += [self._outcomes[job.number] for job in jobs]
        return [self._returned(self._outcomes[job.number].record, job) for job in jobs]

    @abstractmethod
    def run_jobs(self, jobs: Sequence[SweepJob]) -> None:
        """Run the jobs, each in its own process. May raise `Stopped`, or `CannotRun` before any has begun."""

    # --- for subclasses ----------------------------------------------------------------------------------------

    def compose_all(self, jobs: Iterable[Sequence[str]]) -> None:
        """Compose the jobs with these overrides beforehand. Raises what Hydra raises if one cannot be composed."""
        for overrides in jobs:
            config = self._load(overrides)
            if len(self._composed) < _KEPT:
                self._composed[tuple(overrides)] = config

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def compose(self, job: SweepJob) -> DictConfig:
        """Return the configuration of one job, as its process takes it."""
        kept = self._composed.pop(job.overrides, None)
        config = self._load(job.overrides) if kept is None else kept
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
            # The time in it is that of the sweep, not of the process that reads it next.
            config.hydra.sweep.dir = str(self.folder)
        return config

    def ended(self, job: SweepJob, record: JobRecord, note: str = "") -> None:
        """Take the outcome of a job, and tell it in one line. ``note`` is a remark of the launcher on a second try."""
        self._outcomes[job.number] = Outcome(job.number, record, note, told=True)
        if record.status == SKIPPED and not record.started:
            return
        name = name_of(record)
        others = [word for word in job.overrides if word.partition("=")[0] in self._varied]
        more = [word for word in others if word.replace("=", " ") not in name.split(", ")]
        who = f"job {job.number} ({len(self._outcomes)} of {self._count}) {', '.join([name, *more])}"
        log.log(logging.INFO if record.status == OK else logging.ERROR, "%s", line_of(who, record, note, self._left()))

    def _left(self) -> str:
        """Return how long the other jobs will take, judging by what was computed for those that have ended alone."""
        records = [outcome.record for outcome in self._outcomes.values()]
        own = [own_seconds(record) for record in records if record.status == OK and record.built]
        waiting = self._count - len(records)
        if not own or not waiting or self.at_once is None:
            return ""
        return f", about {in_words(fmean(own) * waiting / self.at_once)} left"

    def _named(self, job: SweepJob) -> JobRecord:
        """Return a record of a job from its overrides alone: there may be hundreds, and composing takes time."""
        record = unstarted(self.config)
        given = dict(override.lstrip("+").split("=", 1) for override in job.overrides)
        record.model = given.get("model", record.model)
        record.pruner = given.get("pruner", record.pruner)
        record.sparsity = given.get("sparsity", record.sparsity)
        if "task" in given:
            record.config["task.name"] = given["task"]
        return record

    def _returned(self, record: JobRecord, job: SweepJob) -> JobReturn:
        """Return a job as completed for Hydra, however it ended: its record, or the sweep's objective, says whether."""
        done = JobReturn(overrides=list(job.overrides), status=JobStatus.COMPLETED)
        done.return_value = record
        if names := objectives(self.config.objective):
            # Deferred: this module is imported for every command line.
            from pipeline.run.objective import objective_of

            done.return_value = objective_of(record, SweepSummary.outputs, names)
        return done
