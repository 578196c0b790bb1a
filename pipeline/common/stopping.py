"""How a process is asked to stop, and how it does: an exception that unwinds it, so that locks and scratch go."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

# Ctrl-C, the usual request to end, the one that batch systems give before a time limit, and a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# A terminal, a batch system and a parent may all pass on the same wish. A later signal means that it was not heard.
REPEAT_SECONDS = 10.0


class Stopped(KeyboardInterrupt):
    """Raised in the main thread by a signal of `SIGNALS`. Not an Exception: what handles failures lets it pass."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name}")

    @property
    def status(self) -> int:
        """The exit status that a shell expects of a process which this signal has ended."""
        return 128 + self.signal


@dataclass
class Notice:
    """The first signal that came, or None."""

    signal: int | None = None


_heard = float("-inf")


def _is_new() -> bool:
    """Whether a signal is a wish of its own, and not that of the last one again, whoever has heard that."""
    global _heard  # noqa: PLW0603 - signals are the process's, too
    new = time.monotonic() - _heard > REPEAT_SECONDS
    if new:
        _heard = time.monotonic()
    return new


@contextmanager
def stoppable() -> Iterator[None]:
    """A signal raises Stopped; those that come within `REPEAT_SECONDS` after it do not disturb the unwinding."""

    def stop(number: int, frame: FrameType | None) -> None:
        if _is_new():
            raise Stopped(number)

    with _handled_by(stop):
        yield


@contextmanager
def noticing() -> Iterator[Notice]:
    """A signal is only noted: for a loop that looks now and then, and must not be torn apart in between."""
    notice = Notice()

    def note(number: int, frame: FrameType | None) -> None:
        _is_new()
        notice.signal = notice.signal or number

    with _handled_by(note):
        yield notice


def hold_signals() -> None:
    """Keep signals back until the next `stoppable` or `noticing` of this process or of one that is forked from it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handlers are changed while signals wait, so that none meets the wrong one. What is ignored stays ignored."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number, old in before.items():
            signal.signal(number, old)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
