"""Job of a sweep in the process that Slurm has started for it on a node of the cluster."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from dataclasses import dataclass

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from submitit import JobEnvironment
from submitit.core.utils import UncompletedJobError
from submitit.helpers import DelayedSubmission

from pipeline.common.streams import tolerate_lost_output
from pipeline.run.launchers.slurm_queue import RUNNING, facts_of
from pipeline.run.launchers.work import carry_out, without_a_word
from pipeline.store.records import FAILED, INTERRUPTED

# Signal that Slurm sends before a time limit. Between jobs, submitit handles it.
NOTICE = signal.SIGUSR1


@dataclass(frozen=True)
class NodeJob:
    """Runs a job when called with its configuration. The outcome is left in the job's folder; nothing is returned.

    A job that was stopped while Slurm still wants it to run goes back into the queue: it was pre-empted with notice,
    or its time was nearly over.
    """

    context: HydraContext
    task: TaskFunction

    def __call__(self, config: DictConfig) -> None:
        # On a full disk, a handler would print a traceback for every line; the record says it once.
        logging.raiseExceptions = False
        tolerate_lost_output()
        record = carry_out(config, self.context, self.task)
        if record.status != INTERRUPTED:
            return
        # A job that was cancelled, or that Slurm puts back by itself, is in another state already.
        if facts_of(JobEnvironment().job_id).get("JobState") not in RUNNING:
            sys.exit(record.error)
        try:
            # submitit counts the time limits that were reached, puts the job back, and ends this process.
            signal.raise_signal(NOTICE)
        except (UncompletedJobError, OSError, subprocess.SubprocessError) as error:
            cause = f"{record.error}, and could not be requeued: {error}"
            without_a_word(config, FAILED, cause, record.started, record.seconds)

    def checkpoint(self, config: DictConfig) -> DelayedSubmission:
        """Return the same job to submit again, which finds what was finished. Called by submitit."""
        return DelayedSubmission(self, config)
