"""Running jobs of the pipeline as a user would: ``python -m pipeline.main -m ...``, whose log is seen as it is."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from pipeline.common.stopping import noticing

# Carries out the words of a command line of ``pipeline.main``; returns its exit status.
Execute = Callable[[Sequence[str]], int]
_REFUSED, _STOPPED = 2, 128


class Refused(Exception):
    """``pipeline.main`` did not take the command line; the message says why."""


def run_jobs(words: Sequence[str]) -> int:
    """Run a sweep. Its closing tables are shown only if a job failed: what they say comes in one table at the end.

    Raises Refused for a command line that is not taken, and KeyboardInterrupt if the sweep was stopped.
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
        raise Refused(f"pipeline.main did not take its command line: {shlex.join(words)}")
    if process.returncode > _STOPPED:
        raise KeyboardInterrupt
    if process.returncode < 0:
        print(f"  the sweep was killed by {signal.Signals(-process.returncode).name}", flush=True)
    elif process.returncode:
        print(closing, flush=True)
    return process.returncode
