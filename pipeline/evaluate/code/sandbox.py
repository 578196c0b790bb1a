"""The sandbox for programs that nobody has read, such as a model's answers to programming problems.

Each program gets a separate process inside bubblewrap: new user, pid, mount, network, ipc and uts namespaces, no
capabilities, no way to make further user namespaces, an empty environment, the system and the interpreter read-only,
an empty scratch directory in memory, and limits on everything it could use up. Where this is unavailable, nothing runs.

Limits of the protection: a program shares its interpreter with the tests that judge it. Leaving early, printing a
forged success, or reporting from a forked child do not pass, but a program that looks for the token in the
interpreter's frames, or changes what its tests rely on, can pass without solving its problem. Memory is limited for
each process and, by a check every tenth of a second, for all together; kernel memory that no process has mapped is not
counted. A flaw in the kernel is a way out.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

import psutil

from pipeline.common.terminal import progress
from pipeline.evaluate.code import sandboxed_program
from pipeline.evaluate.code.bubblewrap import TOOL, isolated_python

# Setting up takes hundredths of a second; a machine that needs longer than this will not manage it.
SETUP_SECONDS = 60.0
WATCH_SECONDS = 0.1
PIPE_BYTES = 65536
MIB = 1024**2


@dataclass(frozen=True)
class Limits:
    """Resources that one program may use.

    ``seconds`` of wall-clock time and ``cpu_seconds`` of computing per process; ``memory_mib`` for each process and for
    all together; ``processes`` and threads at a time; ``file_mib`` for each file, for all files together, and for the
    output, of which the first ``output_kib`` are kept.
    """

    seconds: float = 10.0
    cpu_seconds: int = 10
    memory_mib: int = 1024
    processes: int = 32
    file_mib: int = 16
    output_kib: int = 64


@dataclass(frozen=True)
class Outcome:
    """Outcome of a program: whether it ran to its end, why not in one short line, and its output (both streams)."""

    passed: bool
    reason: str
    output: str = ""


@cache
def unavailable() -> str | None:
    """Return why programs cannot be run safely on this machine, and how to fix that; None if they can."""
    if sys.platform != "linux":
        return (
            "programs can be run safely only on Linux: use a Linux machine or leave out tasks that run generated code"
        )
    if shutil.which(TOOL) is None:
        return "programs cannot be run safely without bubblewrap: install it (Debian: apt-get install bubblewrap)"
    try:
        outcome = _run("pass", Limits())
    except (OSError, RuntimeError) as error:
        detail = str(error)
    else:
        if outcome.passed:
            return None
        detail = outcome.reason
    return (
        f"programs cannot be run safely here ({detail}): install bubblewrap 0.8 or newer and allow user namespaces"
        " (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and"
        " kernel.apparmor_restrict_unprivileged_userns; in a container, start it with permission to create them)"
    )


def run(program: str, limits: Limits | None = None) -> Outcome:
    """Run ``program``, Python that may import the standard library, in the sandbox.

    Raises:
        ValueError: programs cannot be run safely here; the message says what to do.
        RuntimeError: the sandbox could not be set up this time, which says nothing about the program.
    """
    if problem := unavailable():
        raise ValueError(problem)
    return _run(program, limits or Limits())


def run_all(programs: Sequence[str], limits: Limits | None = None) -> list[Outcome]:
    """Run programs side by side, one on every core; outcomes in the same order. Raises what ``run`` raises."""
    if problem := unavailable():
        raise ValueError(problem)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        outcomes = pool.map(lambda program: run(program, limits), programs)
        return list(progress(outcomes, "running programs", len(programs)) if len(programs) > 1 else outcomes)


def _run(program: str, limits: Limits) -> Outcome:
    token = secrets.token_hex(16)
    request = {"program": program, "token": token, "limits": _resource_limits(limits)}
    with tempfile.TemporaryFile() as stdin, _pipe() as report, _pipe() as info:
        # As text, since the sandbox does not see this package.
        arguments = ["-c", Path(sandboxed_program.__file__).read_text(encoding="utf-8"), str(report.write.fileno())]
        stdin.write(json.dumps(request).encode())
        stdin.seek(0)
        # An empty environment: even the first process of the sandbox, whose memory the program may read, has none.
        process = subprocess.Popen(
            isolated_python(arguments, limits.file_mib * MIB, info.write.fileno()),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(report.write.fileno(), info.write.fileno()),
            env={},
            cwd="/",
            # An interrupt from the keyboard is for this process, which then ends the sandbox.
            start_new_session=True,
        )
        report.write.close()
        info.write.close()
        assert process.stdout is not None
        with process, process.stdout as output:
            return _Watch(process, output, report.read, info.read, limits).outcome(token)


@dataclass
class _Pipe:
    read: IO[bytes]
    write: IO[bytes]


@contextmanager
def _pipe() -> Iterator[_Pipe]:
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as reader, open(write, "wb", buffering=0) as writer:
        yield _Pipe(reader, writer)


def _resource_limits(limits: Limits) -> dict[str, int]:
    return {
        "AS": limits.memory_mib * MIB,
        "CPU": limits.cpu_seconds,
        "NPROC": limits.processes,
        "FSIZE": limits.file_mib * MIB,
        "NOFILE": 64,
        "CORE": 0,
    }


@dataclass
class _Watch:
    """Follows one sandbox from its start until nothing of it is left."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    report: IO[bytes]
    info: IO[bytes]
    limits: Limits
    received: dict[str, bytearray] = field(
        default_factory=lambda: {name: bytearray() for name in ("output", "report", "info")}
    )
    printed: int = 0
    # The time limit counts from the start of the program, without setting up.
    started: bool = False
    deadline: float = 0.0
    # The first process of the sandbox: when it ends, the kernel ends all others.
    first: int | None = None

    def outcome(self, token: str) -> Outcome:
        try:
            stopped = self._follow()
        finally:
            self._end()
        printed = self.received["output"].decode(errors="replace")
        started, _, told = self.received["report"].decode(errors="replace").partition("\n")
        if started != sandboxed_program.STARTED:
            raise RuntimeError(f"the sandbox could not be set up: {' '.join(printed.split())[-200:] or stopped}")
        if stopped:
            return Outcome(False, stopped, printed)
        if token in told:
            return Outcome(True, "passed", printed)
        if told.startswith("MemoryError"):
            return Outcome(False, f"more memory than {self.limits.memory_mib} MiB", printed)
        return Outcome(False, " ".join(told.split())[:200] or self._exit_reason(), printed)

    def _follow(self) -> str | None:
        """Read from and watch the sandbox until its program ends (return None) or must be stopped (return why)."""
        now = time.monotonic()
        self.deadline, look = now + SETUP_SECONDS, now + WATCH_SECONDS
        ended = os.pidfd_open(self.process.pid)
        try:
            with selectors.DefaultSelector() as ready:
                ready.register(ended, selectors.EVENT_READ)
                for name, stream in (("output", self.output), ("report", self.report), ("info", self.info)):
                    ready.register(stream, selectors.EVENT_READ, name)
                while True:
                    events = [key for key, _ in ready.select(WATCH_SECONDS)]
                    for key in events:
                        if key.data and not self._read(key.data, key.fd):
                            ready.unregister(key.fileobj)
                    # Everything written before the end has been read by then.
                    if [key.fd for key in events] == [ended]:
                        return None
                    watching = time.monotonic() > look
                    if too_much := self._too_much(watching):
                        return too_much
                    look = time.monotonic() + WATCH_SECONDS if watching else look
        finally:
            os.close(ended)

    def _too_much(self, memory: bool) -> str | None:
        """Return which limit the program exceeds, or None; includes the memory limit only if ``memory`` is true."""
        if not self.started and self.received["report"]:
            self.deadline, self.started = time.monotonic() + self.limits.seconds, True
        if time.monotonic() > self.deadline:
            return f"no answer within {self.limits.seconds if self.started else SETUP_SECONDS:g} s"
        if self.printed > self.limits.file_mib * MIB:
            return f"more output than {self.limits.file_mib} MiB"
        if memory and self._memory() > self.limits.memory_mib * MIB:
            return f"more memory than {self.limits.memory_mib} MiB"
        return None

    def _read(self, name: str, descriptor: int) -> bool:
        """Read what is available and return False at the end; keep no more than the limit, however much comes."""
        chunk = os.read(descriptor, PIPE_BYTES)
        kept = self.received[name]
        kept += chunk[: (self.limits.output_kib * 1024 if name == "output" else PIPE_BYTES) - len(kept)]
        if name == "output":
            self.printed += len(chunk)
        if name == "info" and self.first is None:
            # bubblewrap reports the number before it lets the process run.
            with suppress(ValueError, ProcessLookupError):
                self.first = os.pidfd_open(json.loads(kept)["child-pid"])
        return bool(chunk)

    def _memory(self) -> int:
        """Return the bytes of all processes together, shared pages counted once; below the limit, an upper bound."""
        try:
            processes = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            return 0
        # Shared pages counted for each sharer are an upper bound, and much cheaper to read.
        bound = sum(_bytes_of(process, "rss") for process in processes)
        return (
            bound if bound <= self.limits.memory_mib * MIB else sum(_bytes_of(process, "pss") for process in processes)
        )

    def _end(self) -> None:
        """Kill whatever is left and wait until it is gone."""
        if self.first is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.first, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        if self.first is not None:
            with selectors.DefaultSelector() as gone:
                gone.register(self.first, selectors.EVENT_READ)
                gone.select()
            os.close(self.first)

    def _exit_reason(self) -> str:
        code = self.process.returncode
        number = -code if code < 0 else code - 128
        if number == signal.SIGXCPU:
            return f"no answer within {self.limits.cpu_seconds} s of CPU time"
        if number > 0:
            with suppress(ValueError):
                return f"killed by {signal.Signals(number).name}"
        return f"exited early with status {code}"


def _bytes_of(process: psutil.Process, kind: str) -> int:
    try:
        return getattr(process.memory_info() if kind == "rss" else process.memory_full_info(), kind)
    except psutil.Error:
        return 0
