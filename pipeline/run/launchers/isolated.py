"""One job of a sweep in its own process, forked from a server that has imported everything heavy.

The process returns its record through a pipe, and so its outcome is known even where nothing can be written. It ends
with the sweep's process: once that is gone, it stops itself, and is killed if it does not.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import psutil
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from pipeline.common.stopping import SIGNALS
from pipeline.common.streams import tolerate_lost_output
from pipeline.run.launchers.base import SweepJob
from pipeline.run.launchers.memory import held_by
from pipeline.run.launchers.work import carry_out
from pipeline.store.records import JobRecord

_FORKS = multiprocessing.get_context("forkserver")
_PRELOAD = "pipeline.run.launchers.preload"


def start_server(environment: Mapping[str, str], computing: bool) -> None:
    """Start the server, which begins with its imports in the background. It ends after this process and its jobs.

    If jobs will be ``computing``, it imports what they need for that, too.
    """
    _FORKS.set_forkserver_preload([_PRELOAD, *([f"{_PRELOAD}_computing"] if computing else [])])
    # Linear algebra and Arrow would start threads when they are imported.
    calm = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    with _variables({**calm, **environment}):
        forkserver.ensure_running()


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class JobProcess:
    """Running job. Raises OSError or EOFError if no process can be started.

    ``held`` is the memory that it held when last seen, in bytes, ``peak`` the most. ``record`` is the record that it
    gave at its end, ``exit_code`` is negative for a signal and None while it runs.
    """

    def __init__(
        self,
        job: SweepJob,
        config: DictConfig,
        context: HydraContext,
        task: TaskFunction,
        environment: Mapping[str, str],
        grace_seconds: float,
    ) -> None:
        self.job, self.config = job, config
        self.held = self.peak = 0
        self.record: JobRecord | None = None
        self.exit_code: int | None = None
        self._grace = grace_seconds
        self._began, self._spoke = time.monotonic(), float("inf")
        self._pipe, sender = _FORKS.Pipe(duplex=False)
        arguments = (sender, config, context, task, dict(environment), grace_seconds)
        self._process = _FORKS.Process(target=_work, args=arguments, name=f"job {job.number}")
        self._process.start()
        sender.close()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def look(self) -> bool:
        """Update what is known of the process. Returns whether it has ended, with all that it had started."""
        with suppress(psutil.NoSuchProcess):
            self.held = held_by(psutil.Process(self._process.pid))
            self.peak = max(self.peak, self.held)
        # Read before the pipe, since a record that was sent before the end must not be missed.
        self.exit_code = self._process.exitcode
        self._listen()
        if self.exit_code is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid or 0, signal.SIGKILL)
            self._pipe.close()
            self._process.close()
            return True
        if time.monotonic() - self._spoke > self._grace:
            # It has given its record, but one of its threads never ends: the other jobs need not wait for that.
            self._process.kill()
        return False

    def _listen(self) -> None:
        if self._spoke == float("inf") and self._pipe.poll():
            self._spoke = time.monotonic()
            with suppress(EOFError, OSError):
                self.record = JobRecord(**json.loads(self._pipe.recv_bytes()))

    def stop(self) -> None:
        """Ask the process to end cleanly."""
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def ends(self) -> Iterator[Connection | int]:
        """Yield the handles that become readable when the process speaks or ends."""
        yield self._process.sentinel
        if self._spoke == float("inf"):
            yield self._pipe


def wait_for(processes: Sequence[JobProcess], seconds: float) -> None:
    """Wait until one of the processes speaks or ends, at most ``seconds``."""
    connection.wait([end for process in processes for end in process.ends()], seconds)


# --- in the job's own process ----------------------------------------------------------------------------------


def _work(
    sender: Connection,
    config: DictConfig,
    context: HydraContext,
    task: TaskFunction,
    environment: Mapping[str, str],
    grace_seconds: float,
) -> None:
    # A separate process group: what the job starts can be ended with it, and Ctrl-C only comes through the sweep.
    os.setpgid(0, 0)
    for number in SIGNALS:
        # Before and after the job, signals change nothing.
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_end_with_the_sweep, args=(grace_seconds,), name="watch", daemon=True).start()
    # On a full disk, a handler would print a traceback for every line; the record says it once.
    logging.raiseExceptions = False
    tolerate_lost_output()
    os.environ.update(environment)
    record = carry_out(config, context, task)
    with suppress(OSError), sender:
        sender.send_bytes(json.dumps(asdict(record), default=list).encode())
    if not _sweep().is_alive():
        os.killpg(0, signal.SIGKILL)


def _end_with_the_sweep(grace_seconds: float) -> None:
    connection.wait([_sweep().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds)
    os.killpg(0, signal.SIGKILL)


def _sweep() -> BaseProcess:
    parent = multiprocessing.parent_process()
    assert parent is not None
    return parent
