"""Base of all launchers: the jobs of a sweep, and an outcome for each of them, however it ends."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from pipeline.config.objective import objectives
from pipeline.run.compose import job, unstarted
from pipeline.run.sweep import Outcome, SweepSummary
from pipeline.store.records import OK, SKIPPED, JobRecord

log = logging.getLogger(__name__)


class CannotRun(Exception):
    """Raised if none of the jobs can be run as asked; the message is a sentence that names the remedy."""


@dataclass(frozen=True)
class SweepJob:
    """Job of a sweep: its number and its overrides."""

    number: int
    overrides: tuple[str, ...]


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

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs. Raises `Stopped` if the sweep was asked to stop, after the outcomes were collected."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        self.folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        jobs = [SweepJob(number, tuple(overrides)) for number, overrides in enumerate(job_overrides, initial_job_idx)]
        self._count = len(jobs)
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

    def compose(self, job: SweepJob) -> DictConfig:
        """Return the configuration of one job, as its process takes it."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(job.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
            # The time in it is that of the sweep, not of the process that reads it next.
            config.hydra.sweep.dir = str(self.folder)
        return config

    def ended(self, job: SweepJob, record: JobRecord, note: str = "") -> None:
        """Take the outcome of a job. ``note`` is a remark of the launcher, such as a second try."""
        self._outcomes[job.number] = Outcome(job.number, record, note)
        if record.status == SKIPPED and not record.started:
            return
        what = f" after {record.seconds:.0f} s" + (f": {record.error}" if record.error else "")
        place = f"job {job.number} ({len(self._outcomes)} of {self._count})"
        log.log(logging.INFO if record.status == OK else logging.WARNING, "%s: %s%s", place, record.status, what)

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
