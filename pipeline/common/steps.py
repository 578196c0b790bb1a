"""Loops that take long, reported turn by turn to whoever watches this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# Gets the name of a loop, how many of its turns are done, and how many it has.
Watcher = Callable[[str, int, int], None]
_watchers: list[Watcher] = []


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Report every turn of every loop within the block to ``watcher``."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def reported(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """Return the items of a loop, each of which is reported as done when the next is asked for."""
    return _reporting(items, what, total) if _watchers else items


def _reporting(items: Iterable[Any], what: str, total: int) -> Iterator[Any]:
    for done, item in enumerate(items, start=1):
        yield item
        for watcher in _watchers:
            watcher(what, done, total)
