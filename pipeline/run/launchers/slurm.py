"""Launcher for jobs as elements of a Slurm job array, which this command submits, waits for, and collects.

The jobs do not need this command: if it ends, they go on, and the same command finds what they have computed. The
outcome in a job's folder says how the job has ended, or else Slurm does.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import OmegaConf

from pipeline.common.stopping import Notice, Stopped, noticing
from pipeline.run.launchers.base import CannotRun, SweepJob, SweepLauncher, log
from pipeline.run.launchers.slurm_queue import COMMANDS, State, cause_of, facts_of, seconds_of, states_of
from pipeline.run.launchers.work import without_a_word
from pipeline.store.records import FAILED, INTERRUPTED, OUTCOME, SKIPPED, JobRecord, load_records, now

# Slurm is asked less and less often: after a second plus a twentieth of the time passed, at most half a minute.
_FIRST_SECONDS, _SHARE, _MOST_SECONDS = 1.0, 0.05, 30.0
# How long an outcome may take to appear here on a network file system, if Slurm knows of no failure.
_VISIBLE_SECONDS = 60.0
# How long a job that goes back into the queue may look as if it had failed.
_BACK_SECONDS = 10.0
_LOOK_SECONDS = 0.2
# Folder below the sweep's for what is submitted and what the jobs' processes print.
SUBMITTED = "slurm"
# Options that submitit takes for clusters of every kind.
_SHARED = frozenset(("name", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb"))
_NOTICE = "USR1"
_SETUP = (
    f"export SUBMITIT_PREEMPT_SIGNAL={_NOTICE}",
    # srun does not inherit it, and would give the process one core.
    '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
    # Where the cluster does not bind processes to their cores, they would start a thread for each core of the node.
    'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}"',
)


@dataclass
class _Submitted:
    """Job in Slurm, by its id there. ``log`` is where its process writes errors, ``over`` when it was seen to end."""

    job: SweepJob
    id: str
    log: str
    state: State = State("PENDING")
    over: float | None = None


class SlurmLauncher(SweepLauncher):
    """Runs jobs by Slurm; ``options`` are those of ``conf/hydra/launcher/slurm.yaml``."""

    def __init__(self, max_num_timeout: int, **options: Any) -> None:
        self.max_num_timeout = max_num_timeout
        plain: Any = OmegaConf.to_container(OmegaConf.create(options), resolve=True)
        self._options: dict[str, Any] = {key: value for key, value in plain.items() if value is not None}
        if isinstance(setup := self._options.get("setup"), str):
            self._options["setup"] = [setup]

    def run_jobs(self, jobs: Sequence[SweepJob]) -> None:
        if missing := [command for command in COMMANDS if shutil.which(command) is None]:
            raise CannotRun(
                f"hydra/launcher=slurm needs Slurm's commands (not found: {', '.join(missing)}): run this "
                "command where sbatch works, such as a login node, or use hydra/launcher=local"
            )
        limit, delay = 60 * self._options["timeout_min"], self._options["signal_delay_s"]
        if delay >= limit:
            raise CannotRun(
                f"hydra.launcher.signal_delay_s={delay} must be less than the time limit of {limit} seconds"
            )
        self._answers, self._told, self._reasons = True, "", ""
        with noticing() as notice:
            self._open = self._submit(jobs, notice)
            began = time.monotonic()
            while self._open and notice.signal is None:
                self._look()
                if self._open:
                    _pause(min(_FIRST_SECONDS + _SHARE * (time.monotonic() - began), _MOST_SECONDS), notice)
            if self._open:
                self._leave()
                _check(notice)

    # --- submitting --------------------------------------------------------------------------------------------

    def _submit(self, jobs: Sequence[SweepJob], notice: Notice) -> list[_Submitted]:
        """Submit the jobs. Raises CannotRun with Slurm's own words if it rejects them, and Stopped if asked to stop."""
        # Deferred: all launchers are imported for every command line.
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from pipeline.run.launchers.slurm_job import NodeJob

        configs = []
        for job in jobs:
            _check(notice)
            configs.append(self.compose(job))
        folder = self.folder / SUBMITTED
        executor = AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout)
        executor.update_parameters(**_arguments(self._options))
        try:
            # The error contains what sbatch prints.
            with _as_from_outside(), redirect_stderr(io.StringIO()):
                submitted = executor.map_array(NodeJob(self.hydra_context, self.task_function), configs)
        except (FailedJobError, FailedSubmissionError) as error:
            _check(notice)
            said = " ".join(str(error).replace("sbatch: error:", "").split()) or "sbatch gave no reason"
            raise CannotRun(
                f"Slurm rejected the jobs: {said}; see the options in conf/hydra/launcher/slurm.yaml"
            ) from error
        taken = [_Submitted(job, one.job_id, str(one.paths.stderr)) for job, one in zip(jobs, submitted, strict=True)]
        self._array = taken[0].id.partition("_")[0]
        log.info(
            "Slurm %s: submitted; the jobs outlive this command, `scancel %s` cancels them", self._array, self._array
        )
        return taken

    # --- waiting -----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Update the states of the jobs, and take the outcomes of those that have ended."""
        states = states_of(submitted.id for submitted in self._open)
        if states is None and self._answers:
            log.warning("Slurm does not respond; still waiting for its jobs")
        self._answers = states is not None
        for submitted in list(self._open):
            if states is not None:
                submitted.state = states[submitted.id]
            if (record := self._outcome(submitted)) is not None:
                self._open.remove(submitted)
                self.ended(submitted.job, record)
        self._tell()

    def _outcome(self, submitted: _Submitted) -> JobRecord | None:
        """Return the record of a job that has ended, or None if it may still go on."""
        if self._answers and submitted.state.waits:
            submitted.over = None
            return None
        record = None
        # On a network file system, a record that is being replaced may be neither there nor missing.
        with suppress(OSError):
            record = next(iter(load_records(self.folder / str(submitted.job.number), OUTCOME)), None)
        if record is not None and record.status != INTERRUPTED:
            return record
        if not self._answers or not submitted.state.over:
            submitted.over = None
            return None
        seen = time.monotonic()
        submitted.over = submitted.over or seen
        patience = _BACK_SECONDS if submitted.state.bad else _VISIBLE_SECONDS
        return self._lost(submitted) if seen - submitted.over >= patience else None

    def _lost(self, submitted: _Submitted) -> JobRecord:
        """Return the record of a job that was ended from outside, or whose process could not do its work."""
        facts = facts_of(submitted.id)
        cause = f"{cause_of(submitted.state, facts)} (job {submitted.id}, {submitted.log})"
        return without_a_word(self.compose(submitted.job), FAILED, cause, now(), seconds_of(facts))

    def _tell(self) -> None:
        """Log a line about all jobs when something has changed."""
        waiting = [submitted.state.reason for submitted in self._open if submitted.state.waits]
        running, done = len(self._open) - len(waiting), self._count - len(self._open)
        # Slurm names no reason while it decides, which is not a change.
        if reasons := {reason for reason in waiting if reason not in ("", "None")}:
            self._reasons = ", ".join(sorted(reasons))
        why = f" ({self._reasons})" if waiting and self._reasons else ""
        line = f"Slurm {self._array}: {len(waiting)} pending{why}, {running} running, {done} done"
        if line != self._told:
            log.info("%s", line)
        self._told = line

    def _leave(self) -> None:
        """Stop waiting. The jobs stay in Slurm, since nobody is known to want their end."""
        log.warning(
            "the jobs keep running in Slurm: `squeue --jobs=%s` lists them, `scancel %s` cancels them",
            self._array,
            self._array,
        )
        for submitted in self._open:
            where = f"continues in Slurm as {submitted.id}, last seen {submitted.state.name.lower()}"
            self.ended(submitted.job, replace(self._named(submitted.job), status=SKIPPED, error=where))


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as submitit names them: those that only Slurm has begin with ``slurm_``."""
    further = {
        # A job can be put back into the queue even where that is not the cluster's default.
        "requeue": True,
        "signal": f"{_NOTICE}@{options['signal_delay_s']}",
    }
    options = options | {
        "setup": [*options.get("setup", []), *_SETUP],
        "additional_parameters": further | options.get("additional_parameters", {}),
    }
    return {key if key in _SHARED else f"slurm_{key}": value for key, value in options.items()}


@contextmanager
def _as_from_outside() -> Iterator[None]:
    """Hide the Slurm job around this process, if any, within the block: sbatch would take over what it was given."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    from submitit.helpers import clean_env

    cluster = os.environ.get("SLURM_CONF")
    with clean_env():
        if cluster is not None:
            os.environ["SLURM_CONF"] = cluster
        yield


def _check(notice: Notice) -> None:
    if notice.signal is not None:
        raise Stopped(notice.signal)


def _pause(seconds: float, notice: Notice) -> None:
    """Wait for ``seconds``, or until a signal comes."""
    end = time.monotonic() + seconds
    while notice.signal is None and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
