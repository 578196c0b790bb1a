"""The process beside a job that draws, seen from a process without torch, as a command has it when a job begins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil

from pipeline.run.drawing_process import begin, drawing_process, in_drawing_process

BEGUN = """
import os, signal, sys
from pathlib import Path
from pipeline.plot.discovery import UnknownFigure
from pipeline.config.figures import by_default
from pipeline.run.drawing_process import begin, draw_figures, drawing_process, in_drawing_process
os.sched_getaffinity = lambda _: {0, 1}
with drawing_process():
    begin()
    second = in_drawing_process(os.getpid)
    print(second, flush=True)
"""
SECONDS = 60


def lines_of(*body: str) -> Sequence[str]:
    """Lines that a process prints, which has begun another one to draw and then does what is in the body."""
    script = BEGUN + "".join(f"    {line}\n" for line in body)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_work_is_done_beside_until_the_block_ends() -> None:
    second, again, first = map(int, lines_of("print(in_drawing_process(os.getpid))", "print(os.getpid())"))
    assert second == again != first
    assert not psutil.pid_exists(second)


def test_what_the_work_raises_is_raised_here() -> None:
    raised = lines_of(
        "from dataclasses import replace",
        "form = replace(by_default(), select=('fig99',))",
        "try: in_drawing_process(draw_figures, Path('nowhere'), form)",
        "except UnknownFigure as error: print('fig99' in str(error))",
    )
    assert raised[1:] == ["True"]


def test_where_the_process_was_killed_this_one_does_the_work() -> None:
    killed = lines_of("os.kill(second, signal.SIGKILL)", "print(in_drawing_process(os.getpid) == os.getpid())")
    assert killed[1:] == ["True"]


def test_a_stop_signal_to_the_group_leaves_it_to_the_command() -> None:
    heard = lines_of("os.kill(second, signal.SIGTERM)", "print(in_drawing_process(os.getpid) == second)")
    assert heard[1:] == ["True"]


def test_it_ends_with_a_command_that_was_killed() -> None:
    script = f"{BEGUN}    signal.pause()\n"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        second = psutil.Process(int(command.stdout.readline()))
        command.send_signal(signal.SIGKILL)
    psutil.wait_procs([second], timeout=SECONDS)
    assert not second.is_running() or second.status() == psutil.STATUS_ZOMBIE


def test_beside_torch_nothing_is_forked() -> None:
    import torch  # noqa: F401 - its threads would be lost

    with drawing_process():
        begin()
        assert in_drawing_process(os.getpid) == os.getpid()
