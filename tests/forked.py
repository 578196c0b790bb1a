"""Children of the tests' own process, which has imported everything: what a process of its own takes seconds to do."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable

from hydra.core.global_hydra import GlobalHydra

from pipeline.run import command
from pipeline.run.launchers import isolated, local
from pipeline.run.sweep import SweepSummary


def in_a_child(work: Callable[[], object]) -> int:
    """Do something in a child of this process. Returns how it ended: a status, or a signal as a negative number."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            work()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            # No test may go on here.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_forked(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m pipeline.main`` with these arguments."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        status = in_a_child(lambda: _command(arguments, out.fileno(), err.fileno()))
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode())
    return subprocess.CompletedProcess(arguments, status, *said)


def _command(arguments: tuple[str, ...], out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.argv = ["pipeline.main", *arguments]
    # The server that jobs are forked from would import everything again; this process has it all.
    isolated._FORKS = multiprocessing.get_context("fork")
    local.start_server = lambda environment, computing: None
    GlobalHydra.instance().clear()
    SweepSummary.outcomes = []
    sys.exit(command.main())
