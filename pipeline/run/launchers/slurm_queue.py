"""Queries of Slurm about jobs: their states, and why one has ended. Works with and without Slurm's accounting."""

from __future__ import annotations

import logging
import re
import shlex
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

log = logging.getLogger(__name__)
# Required commands; accounting (sacct) is asked where it exists.
COMMANDS = ("sbatch", "srun", "squeue", "scontrol")
# States of a job that goes on, also while a signal is sent to it.
RUNNING = ("RUNNING", "SIGNALING")
GONE = "GONE"
# A job in any other state may still run, or run again.
_ENDS = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)
_OVER = frozenset((*_ENDS, GONE))
_WAITING = frozenset(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"))
_COMMAND_SECONDS = 60
_UNKNOWN = "Invalid job id"
_CAUSES = {
    "BOOT_FAIL": "its node failed to boot",
    "CANCELLED": "cancelled in Slurm",
    "DEADLINE": "Slurm ended it at its deadline",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "killed for running out of memory: raise hydra.launcher.mem_gb",
    "PREEMPTED": "preempted by another job, and not requeued",
    "TIMEOUT": "reached its time limit: raise hydra.launcher.timeout_min",
    GONE: "no longer known to Slurm, and it left no record",
}


@dataclass(frozen=True)
class State:
    """Slurm's name for the state of a job, and why it waits."""

    name: str
    reason: str = ""

    @property
    def over(self) -> bool:
        return self.name in _OVER

    @property
    def bad(self) -> bool:
        """True if the job is over and Slurm knows that something went wrong."""
        return self.over and self.name not in ("COMPLETED", GONE)

    @property
    def waits(self) -> bool:
        return self.name in _WAITING


def states_of(jobs: Iterable[str]) -> dict[str, State] | None:
    """Return the states of jobs by id (12, or 12_3 for an element of an array), or None if Slurm cannot be asked now.

    Slurm forgets a job some minutes after its end; only accounting remembers it then. Without it, the job is `GONE`.
    """
    jobs = list(jobs)
    heads = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    listed = _ask("squeue", f"--jobs={heads}", "--array", "--states=all", "--noheader", "--format=%i|%T|%r")
    if listed is None:
        return None
    found = {line.split("|")[0]: State(*line.split("|")[1:3]) for line in listed.splitlines() if line.count("|") == 2}
    if missing := [job for job in jobs if job not in found]:
        found = _remembered(heads) | found
        found |= {job: State(GONE) for job in missing if job not in found}
    return {job: found[job] for job in jobs}


def _remembered(heads: str) -> dict[str, State]:
    listed = _ask("sacct", f"--jobs={heads}", "-X", "--noheader", "--parsable2", "--format=JobID,State")
    # As in "CANCELLED by 1000".
    return {
        job: State(state.split()[0])
        for job, _, state in (line.partition("|") for line in (listed or "").splitlines())
        if state
    }


def facts_of(job: str) -> dict[str, str]:
    """Return everything that Slurm knows of a job, by Slurm's names (JobState, ExitCode, RunTime); empty if nothing."""
    said = _ask("scontrol", "show", "job", "--oneliner", job) or ""
    facts = dict(re.findall(r"(\w+)=(\S+)", said))
    if not facts and (told := _ask("sacct", f"--jobs={job}", "-X", "-n", "-P", "--format=State,ExitCode,Elapsed")):
        facts = dict(zip(("JobState", "ExitCode", "RunTime"), told.splitlines()[-1].split("|"), strict=False))
    return facts


def cause_of(state: State, facts: dict[str, str]) -> str:
    """Return why a job that left no outcome has ended."""
    if state.name in _CAUSES:
        return _CAUSES[state.name]
    code, _, number = facts.get("ExitCode", "").partition(":")
    # srun ends like a shell: with 128 plus the number of the signal.
    killed = int(number or 0) or max(int(code or 0) - 128, 0)
    if killed:
        with suppress(ValueError):
            return f"killed by {signal.Signals(killed).name}"
    return f"its process exited with status {code or 'unknown'} without writing a record"


def seconds_of(facts: dict[str, str]) -> float:
    """Return how long a job ran: Slurm writes 1-02:03:04 for a day, two hours, three minutes and four seconds."""
    days, _, clock = f"0-{facts.get('RunTime', '')}".rpartition("-")
    try:
        hours, minutes, seconds = map(int, clock.split(":"))
        return float(int(days.rpartition("-")[2]) * 86400 + hours * 3600 + minutes * 60 + seconds)
    except ValueError:
        return 0.0


def _ask(*command: str) -> str | None:
    """Return what a command prints; "" for jobs that Slurm does not know, None if the command fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("%s: %s", shlex.join(command), error)
        return None
    if done.returncode:
        return "" if _UNKNOWN in done.stderr else None
    return done.stdout
