"""Stopping a process by a signal: an exception unwinds it, which removes its locks and scratch files."""

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
# A terminal, a batch system and a parent may all pass on the same request. A later signal means it was not heard.
REPEAT_SECONDS = 10.0


class Stopped(KeyboardInterrupt):
    """Raised in the main thread by a signal of `SIGNALS`. Not an Exception, so handlers of failures let it pass."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name}")

    @property
    def status(self) -> int:
        """Exit status that a shell expects of a process ended by this signal."""
        return 128 + self.signal


@dataclass
class Notice:
    """The first signal received, or None."""

    signal: int | None = None


_heard = float("-inf")


def _is_new() -> bool:
    """Return whether a signal is a new request, and not a repeat of the last one, whichever handler has heard that."""
    global _heard  # noqa: PLW0603 - signals are the process's, too
    new = time.monotonic() - _heard > REPEAT_SECONDS
    if new:
        _heard = time.monotonic()
    return new


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a signal raise Stopped within the block; repeats within `REPEAT_SECONDS` do not disturb the unwinding."""

    def stop(number: int, frame: FrameType | None) -> None:
        if _is_new():
            raise Stopped(number)

    with _handled_by(stop):
        yield


@contextmanager
def noticing() -> Iterator[Notice]:
    """Let a signal only be noted within the block: for a loop that polls and must not be interrupted in between."""
    notice = Notice()

    def note(number: int, frame: FrameType | None) -> None:
        _is_new()
        notice.signal = notice.signal or number

    with _handled_by(note):
        yield notice


def hold_signals() -> None:
    """Block signals until the next `stoppable` or `noticing` of this process or of one that is forked from it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle signals by ``handler`` within the block; ignored signals stay ignored.

    Handlers are replaced while signals are blocked, so no signal meets the wrong one.
    """
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
