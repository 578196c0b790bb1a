"""How far work in this process is, as a line every half minute where no progress bar can be seen."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

SECONDS = 30.0
_WIDTH = 79
# From the first ticks alone, the time left cannot be told.
_LEAST_SECONDS = 3.0
_MINUTE, _HOUR = 60, 3600


@dataclass
class Step:
    """A loop within a stage, of whose ``total`` turns some are ``done``."""

    what: str
    total: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def words(self) -> str:
        """Say how far it is and how long it will take: "multiple choice 45 %, about 2 min left"."""
        seconds = time.monotonic() - self.began
        far = f"{self.what} {100 * self.done // max(self.total, 1)} %"
        if not self.done or seconds < _LEAST_SECONDS:
            return far
        return f"{far}, about {in_words(seconds * (self.total - self.done) / self.done)} left"


class Heartbeat:
    """State of the work of ``who``: its stage, and the loop that it is in."""

    current: Heartbeat | None = None

    def __init__(self, who: str) -> None:
        self.who, self._stage, self._steps = who, "", list[Step]()
        self._began = time.monotonic()
        self._bar: tqdm | None = None

    def begin(self, stage: str) -> None:
        """Note the stage that begins."""
        self._stage, self._began = stage, time.monotonic()
        if self._bar is not None:
            self._bar.set_description_str(f"  {self.who}: {stage}")

    @contextmanager
    def step(self, what: str, total: int) -> Iterator[Step]:
        """Note a loop within the block, the innermost of which is told."""
        step = Step(what, total)
        self._steps.append(step)
        try:
            yield step
        finally:
            with suppress(ValueError):  # of a loop that was left without its end
                self._steps.remove(step)

    @property
    def line(self) -> str:
        """Say in one line of at most 79 characters where the work is."""
        steps = [*self._steps]
        far = steps[-1].words if steps else f"{in_words(time.monotonic() - self._began)} so far"
        end = f": {f'{self._stage}, ' if self._stage else ''}{far}"
        room = max(_WIDTH - len(end) - 2, 10)
        who = self.who if len(self.who) <= room else f"{self.who[: room - 1]}…"
        return f"  {who}{end}"

    @contextmanager
    def telling(self, seconds: float) -> Iterator[None]:
        """Tell within the block, behind the bars on a terminal or by a line every so many ``seconds``."""
        if bars_are_seen():
            # A bar that is shown only after a delay is not taken away at its end unless it has moved.
            look: dict[str, Any] = {"bar_format": "{desc}", "leave": False, "dynamic_ncols": True, "delay": 0}
            with tqdm(total=0, desc=f"  {self.who}", **look) as self._bar:
                yield
            self._bar = None
            return
        over = threading.Event()
        thread = threading.Thread(target=self._tell, args=(over, seconds), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def telling_by_alarm(self, seconds: float) -> Iterator[None]:
        """Tell within the block without a thread, in the main one, and nothing on a terminal."""
        if bars_are_seen():
            yield
            return
        before = signal.signal(signal.SIGALRM, lambda *_: self._say())
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _tell(self, over: threading.Event, seconds: float) -> None:
        while not over.wait(seconds):
            self._say()

    def _say(self) -> None:
        with suppress(OSError, ValueError):  # a standard error that is gone
            print(self.line, file=sys.stderr, flush=True)


@contextmanager
def working(who: str, seconds: float = SECONDS, forks: bool = False) -> Iterator[None]:
    """Tell within the block how far the work of ``who`` is: its `stage`, and the loop that it is in.

    Work that ``forks`` processes is told without starting a thread, which a fork would lose.
    """
    before, Heartbeat.current = Heartbeat.current, (own := Heartbeat(who))
    try:
        with own.telling_by_alarm(seconds) if forks else own.telling(seconds):
            yield
    finally:
        Heartbeat.current = before


def stage(name: str) -> None:
    """Note the stage that begins; without work that is told, nothing happens."""
    if Heartbeat.current is not None:
        Heartbeat.current.begin(name)


@contextmanager
def step(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function for the block that notes so many turns of a loop of ``total`` as done."""
    if Heartbeat.current is None:
        yield lambda turns: None
        return
    with Heartbeat.current.step(what, total) as own:

        def advance(turns: int) -> None:
            own.done += turns

        yield advance


def counted(items: Iterable[Any], what: str, total: int) -> Iterator[Any]:
    """Return the items, noting each as done when the next is asked for."""
    with step(what, total) as advance:
        for item in items:
            yield item
            advance(1)


def bars_are_seen() -> bool:
    """Return whether standard error is a terminal that this process has for itself."""
    return sys.stderr.isatty() and not os.environ.get("TQDM_DISABLE")


def in_words(seconds: float) -> str:
    """Return a time for people: seconds, minutes or hours."""
    if seconds < _MINUTE:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"
