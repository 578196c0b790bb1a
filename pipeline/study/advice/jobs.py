"""Runs jobs of the pipeline as a user would, by ``python -m pipeline.main -m ...``, and shows their log unchanged."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from pipeline.common.stopping import noticing

# Runs a command line of ``pipeline.main``, given as words, and returns its exit status.
Execute = Callable[[Sequence[str]], int]
_REFUSED, _STOPPED = 2, 128


class Refused(Exception):
    """Raised if ``pipeline.main`` rejects the command line; the message quotes it."""


def run_jobs(words: Sequence[str]) -> int:
    """Run a sweep and return its exit status. Its closing tables are printed only if a job failed.

    Otherwise one table at the end says the same. Raises Refused if the command line is rejected, and KeyboardInterrupt
    if the sweep was stopped.
    """
    print(f"  python -m pipeline.main {shlex.join(words)}", flush=True)
    command = [sys.executable, "-m", "pipeline.main", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        closing, _ = process.communicate()
    except KeyboardInterrupt:
        # The sweep ends cleanly once it is asked to, and is not left behind.
        process.terminate()
        with noticing():
            process.communicate()
        raise
    if process.returncode == _REFUSED:
        raise Refused(f"pipeline.main rejected its command line: {shlex.join(words)}")
    if process.returncode > _STOPPED:
        raise KeyboardInterrupt
    if process.returncode < 0:
        print(f"  the sweep was killed by {signal.Signals(-process.returncode).name}", flush=True)
    elif process.returncode:
        print(closing, flush=True)
    return process.returncode
