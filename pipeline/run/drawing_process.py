"""A second process of a command that runs one job: it draws in several processes, and writes the page.

It is forked before torch is imported, whose threads a fork would lose, so it can fork others itself. What draws is
imported there while the job imports what computes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, ParamSpec, TypeVar

from pipeline.common.garbage import importing
from pipeline.common.parents import end_with_parent
from pipeline.common.stopping import SIGNALS
from pipeline.config.schema import FiguresConfig

if TYPE_CHECKING:
    from pipeline.plot.drawing import FigureResult

P = ParamSpec("P")
T = TypeVar("T")


class _Second:
    """The second process of this command: its pool, its number, and whether the command ends it."""

    allowed: ClassVar[bool] = False
    pool: ClassVar[ProcessPoolExecutor | None] = None
    number: ClassVar[Future[int] | None] = None


@contextmanager
def drawing_process() -> Iterator[None]:
    """Let `begin` start a process within the block. At its end, the process is ended with all that it has started."""
    _Second.allowed = True
    try:
        yield
    finally:
        _Second.allowed = False
        _end()


def begin() -> None:
    """Start the process, unless it would have no processor for itself or could not fork others."""
    # Deferred: this module is imported for every command line.
    from pipeline.plot.drawing import cores

    if _Second.allowed and _Second.pool is None and cores() > 1:
        _Second.pool = ProcessPoolExecutor(1, get_context("fork"), initializer=_prepare, initargs=(os.getpid(),))
        _Second.number = _Second.pool.submit(os.getpid)


def in_drawing_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``work`` returns in the second process, or in this one if there is none or it was killed.

    Arguments and result are pickled; an exception is raised here.
    """
    if _Second.pool is None:
        return work(*args, **kwargs)
    try:
        return _Second.pool.submit(work, *args, **kwargs).result()
    except BrokenProcessPool:
        _end()
        return work(*args, **kwargs)


def draw_figures(outputs: Path, form: FiguresConfig | None) -> list[FigureResult]:
    """Draw the figures that a form selects, in as many processes as this one may fork. Raises what `draw` does."""
    from pipeline.plot.drawing import cores, draw

    return draw(outputs, form=form, processes=cores())


def draw_and_write(outputs: Path, form: FiguresConfig | None) -> tuple[list[FigureResult], Path]:
    """Draw figures as `draw_figures` does, and write the page that shows them. Returns its path, too."""
    from pipeline import report

    drawn = draw_figures(outputs, form)
    return drawn, report.write(outputs, drawn=drawn, form=form)


def _end() -> None:
    """End the process: files are written whole or not at all, so that it may be killed at any time."""
    pool, _Second.pool = _Second.pool, None
    if pool is None:
        return
    assert _Second.number is not None
    with suppress(BrokenProcessPool, ProcessLookupError):
        os.kill(_Second.number.result(), signal.SIGKILL)
    pool.shutdown()


def _prepare(parent: int) -> None:
    end_with_parent(parent)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the command ends it
    with importing(), suppress(Exception):
        from pipeline.plot import discovery, render  # noqa: F401
        from pipeline.report import page  # noqa: F401

        discovery.figures()
