"""Locks for processes that share one outputs folder, also on a network file system without flock.

A lock is a file that its holder created and keeps touching. One whose holder has died on this machine is taken over at
once, one of another machine after `LEASE_SECONDS` without a touch, by the waiter's own clock. Locks only save work;
the content of results never depends on them: an artifact appears by one rename, whoever built it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLease, Timeout

from pipeline.common.access import NoAccess, forbidden, writing
from pipeline.common.files import age_of

# All processes that share an outputs folder have to agree on it.
LEASE_SECONDS = 60.0
_POLL_SECONDS = 0.1
# A lock is written right after it is created. One that is still empty after this time was left by a process that was
# killed in between, and does not name that process.
_EMPTY_SECONDS = 5.0


class Busy(Exception):
    """Another process holds the lock, and the caller has better things to do than to wait."""


@contextmanager
def holding(path: Path, on_wait: Callable[[], None] | None) -> Iterator[None]:
    """Hold the lock file at ``path`` within the block.

    ``on_wait`` is called once before waiting; if it is None, Busy is raised instead of waiting. Raises NoAccess if this
    user may not make locks there, or not read the lock that is there.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lease = SoftFileLease(path, lease_duration=LEASE_SECONDS, poll_interval=_POLL_SECONDS)
        if not _taken(lease):
            _check_readable(path)
            if on_wait is None:
                raise Busy(path.stem)
            on_wait()
            while not _taken(lease, _EMPTY_SECONDS):
                _check_readable(path)
    try:
        yield
    finally:
        lease.release()


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock. A lock left by a dead process of this machine is removed."""
    if not path.exists():
        return False
    lease = SoftFileLease(path, lease_duration=LEASE_SECONDS)
    if _taken(lease):
        lease.release()
        return False
    return True


def _taken(lease: SoftFileLease, seconds: float = 0.0) -> bool:
    """Try to take the lock, waiting for up to ``seconds``, and return whether that succeeded."""
    _drop_empty(Path(lease.lock_file))
    # The first try removes what a dead holder left, the second one takes it.
    for timeout in (0.0, seconds):
        try:
            lease.acquire(timeout=timeout)
        except Timeout:
            continue
        return True
    return False


def _check_readable(path: Path) -> None:
    """Raise NoAccess for an unreadable lock: it says whether its holder lives, and the wait for it might never end."""
    if not os.access(path, os.R_OK) and path.exists():
        raise NoAccess(errno.EACCES, f"{forbidden(path)}, or give another outputs folder")


def _drop_empty(path: Path) -> None:
    with suppress(OSError):
        if path.stat().st_size == 0 and age_of(path) > _EMPTY_SECONDS:
            path.unlink()
