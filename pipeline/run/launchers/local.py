"""Launcher for jobs on this machine, one after another or side by side, each in its own process.

However a job ends (killed, crashed, out of memory), the others go on. How many run side by side depends on memory,
too: until a job has ended well, one runs alone, which shows how much a job needs; after that, another one starts as
long as the memory left, less what the running ones may still take, holds the largest need that was seen. A job that
was killed, or had too little memory, while others ran beside it is tried once more at the end, alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from omegaconf import DictConfig, open_dict

from pipeline.common.errors import lacked_memory, plain
from pipeline.common.stopping import Stopped, noticing
from pipeline.run.expected import finished_before
from pipeline.run.launchers.base import SweepJob, SweepLauncher
from pipeline.run.launchers.isolated import JobProcess, start_server, wait_for
from pipeline.run.launchers.memory import GIB, kills, memory
from pipeline.run.launchers.work import without_a_word
from pipeline.store.records import FAILED, INTERRUPTED, OK, JobRecord, now

# Interval at which memory and signals are checked.
_LOOK_SECONDS = 0.5
_CORES_A_JOB = 4
# Loggers of what the sweep's own lines tell: how jobs ended, and where their runs are.
_TOLD = ("pipeline.track", "pipeline.run.job", "pipeline.run.job_record", "pipeline.run.compose")
_AGAIN = "second try, alone"


@dataclass
class _Running:
    """Running job in its place; there are as many places as jobs at once."""

    process: JobProcess
    place: int
    started: str
    alone: bool
    kills: int | None = field(default_factory=kills)
    lowest: int = field(default_factory=lambda: memory().available)


class LocalLauncher(SweepLauncher):
    """Runs ``jobs`` at once, None to choose; ``memory`` is the share of the machine's that they may fill together."""

    def __init__(self, grace_seconds: float, jobs: int | None = 1, memory: float = 1.0) -> None:
        self.grace_seconds, self.jobs, self.share = grace_seconds, jobs, memory

    def run_jobs(self, jobs: Sequence[SweepJob]) -> None:
        self._gpus = _gpus() if self.jobs != 1 else []
        cores = len(os.sched_getaffinity(0))
        self._places = self.jobs or len(self._gpus) or max(2, cores // _CORES_A_JOB)
        self.at_once = self._places
        self._running: list[_Running] = []
        self._waiting, self._again = deque(jobs), deque[tuple[SweepJob, JobRecord]]()
        self._need, self._known = 0, False
        threads = str(max(1, cores // self._places))
        own = self._places == 1 or "OMP_NUM_THREADS" in os.environ
        found = finished_before(self.folder, [job.overrides for job in jobs])
        start_server({} if own else {"OMP_NUM_THREADS": threads}, computing=not found)
        with noticing() as notice:
            try:
                while notice.signal is None and (self._waiting or self._again or self._running):
                    self._start_more()
                    self._see()
            finally:
                self._stop()
            if notice.signal is not None:
                raise Stopped(notice.signal)

    def _start_more(self) -> None:
        if self._waiting and len(self._running) < self._places and self._room():
            self._start(self._waiting.popleft(), alone=False)
        elif self._again and not self._waiting and not self._running:
            self._start(self._again.popleft()[0], alone=True)

    def _room(self) -> bool:
        """Return whether memory holds one more job."""
        if not self._running:
            return True
        if not self._known or any(running.alone for running in self._running):
            return False
        there = memory()
        taken = there.total - there.available
        coming = sum(max(0, self._need - running.process.held) for running in self._running)
        return self.share * there.total - taken - coming >= self._need

    def _start(self, job: SweepJob, alone: bool) -> None:
        config, started = self.compose(job), now()
        place = min(set(range(self._places)) - {running.place for running in self._running})
        environment = {}
        _hush(config, job)
        if self._places > 1:
            # Progress bars of several jobs would garble each other.
            environment["TQDM_DISABLE"] = "1"
            if self._gpus:
                environment["CUDA_VISIBLE_DEVICES"] = self._gpus[place % len(self._gpus)]
        try:
            process = JobProcess(job, config, self.hydra_context, self.task_function, environment, self.grace_seconds)
        except (OSError, EOFError) as error:
            cause = f"its process could not be started: {plain(error)}"
            self.ended(job, without_a_word(config, FAILED, cause, started))
            return
        self._running.append(_Running(process, place, started, alone))

    def _see(self) -> None:
        """Wait a little, and take the outcomes of the jobs that have ended."""
        wait_for([running.process for running in self._running], _LOOK_SECONDS)
        available = memory().available
        for running in list(self._running):
            running.lowest = min(running.lowest, available)
            ended = running.process.look()
            self._need = max(self._need, running.process.peak)
            if ended:
                self._running.remove(running)
                self._take(running)

    def _take(self, running: _Running) -> None:
        process, job = running.process, running.process.job
        record = process.record
        killed = record is None and process.exit_code == -signal.SIGKILL
        if record is None:
            record = self._lost(running)
        beside = self._places > 1 and not running.alone
        if beside and record.status == FAILED and (killed or lacked_memory(record.error)):
            self._again.append((job, record))
            return
        self._known = self._known or record.status == OK
        self.ended(job, record, _AGAIN if running.alone else "")

    def _lost(self, running: _Running, status: str = FAILED) -> JobRecord:
        process = running.process
        return without_a_word(process.config, status, self._cause(running), running.started, process.seconds)

    def _cause(self, running: _Running) -> str:
        """Return why a process ended without a record, as far as it can be known."""
        process, there = running.process, memory()
        code, held = process.exit_code or 0, process.peak / GIB
        if code >= 0:
            return f"its process exited with status {code} after {process.seconds:.0f} s without writing a record"
        name = signal.Signals(-code).name
        said = f"killed by {name} after {process.seconds:.0f} s"
        if -code != signal.SIGKILL:
            return f"{said}, a crash in compiled code" if -code in (signal.SIGSEGV, signal.SIGBUS) else said
        before, after = running.kills, kills()
        short = (before is not None and after is not None and after > before) or running.lowest < there.total / 50
        why = ", probably out of memory: it used" if short else "; it used"
        return f"{said}{why} {held:.1f} of the machine's {there.total / GIB:.1f} GiB"

    def _stop(self) -> None:
        """End the running jobs: ask, wait, kill. None are left if the sweep has come to its end."""
        for running in self._running:
            running.process.stop()
        deadline = time.monotonic() + self.grace_seconds
        while self._running:
            wait_for([running.process for running in self._running], _LOOK_SECONDS)
            for running in list(self._running):
                if running.process.look():
                    self._running.remove(running)
                    record = running.process.record or self._lost(running, INTERRUPTED)
                    self.ended(running.process.job, record)
                elif time.monotonic() > deadline:
                    running.process.kill()
        while self._again:
            self.ended(*self._again.popleft())


def _hush(config: DictConfig, job: SweepJob) -> None:
    """Leave what a job says to its log, and only warnings to the screen, since the sweep has a line on each job."""
    logging = config.hydra.job_logging
    with open_dict(logging):
        logging.handlers.screen.level = "WARNING"
        logging.formatters.screen.format = f"[{job.number}] %(message)s"
        for name in _TOLD:
            logging.loggers[name] = {"level": "INFO", "handlers": ["file"], "propagate": False}


def _gpus() -> list[str]:
    """Return the GPUs that jobs may use, as CUDA_VISIBLE_DEVICES names them, without opening the driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]
