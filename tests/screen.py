"""What a person sees in a terminal of 80 × 40 while a command runs, and what is left at its end."""

from __future__ import annotations

import os
import pty
import subprocess
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyte

COLUMNS, LINES = 80, 40


@dataclass(frozen=True)
class Shown:
    """All lines that were ever on the screen, and the lines that are left, those that have scrolled away first."""

    ever: frozenset[str]
    left: list[str]


def on_a_terminal(command: Sequence[str], **options: Any) -> Shown:
    """Run a command in a terminal of its own until it ends."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (LINES, COLUMNS))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TQDM_", "COLUMNS", "LINES"))
    }
    environment["TERM"] = "linux"
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True, **options
    )
    os.close(theirs)
    screen = pyte.HistoryScreen(COLUMNS, LINES, history=10_000, ratio=1)
    stream, ever = pyte.ByteStream(screen), set[str]()
    while chunk := _read(ours):
        stream.feed(chunk)
        ever.update(_lines(screen))
    os.close(ours)
    assert process.wait() == 0, "\n".join(_lines(screen))
    scrolled = ["".join(line[at].data for at in range(COLUMNS)).rstrip() for line in screen.history.top]
    left = [*scrolled, *_lines(screen)]
    while left and not left[-1]:
        left.pop()
    return Shown(frozenset(ever), left)


def _read(end: int) -> bytes:
    try:
        return os.read(end, 4096)
    except OSError:  # the last process that had the other end is gone
        return b""


def _lines(screen: pyte.Screen) -> list[str]:
    return [line.rstrip() for line in screen.display]
