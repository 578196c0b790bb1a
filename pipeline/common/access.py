"""Errors of access: what this user may not read or write, in a sentence with the way out.

Such an error says nothing about the content of a file.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Errors that do say something about the content: the file is missing, or something else is in its place.
_ABOUT_CONTENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class NoAccess(OSError):
    """A failed access that says nothing about the content of the file. Its text is a whole sentence."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise NoAccess within the block for an OSError that says nothing about the content of ``path``."""
    try:
        yield
    except NoAccess:
        raise
    except OSError as error:
        if error.errno in _ABOUT_CONTENT or error.errno is None:
            raise
        raise NoAccess(error.errno, _unread(error, path)) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise NoAccess within the block where this user may not write at ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FORBIDDEN or isinstance(error, NoAccess):
            raise
        raise NoAccess(error.errno, f"{forbidden(path, write=True)}, or give another outputs folder") from error


def forbidden(path: Path, write: bool = False) -> str:
    """Return why this user may not read (or write) a path, and what its owner has to do: a sentence without stop.

    It names the first closed folder on the way, else the path itself, or the folder where that would be created.
    """
    place = _closed(path)
    verb, rights = ("write to", "rwX") if write else ("read", "rX")
    return f"no permission to {verb} {place}{_owner(place)}: ask its owner to run `chmod -R g+{rights} {place}`"


def is_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder. Raises NoAccess if that cannot be found out."""
    try:
        with reading(path):
            return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _unread(error: OSError, path: Path) -> str:
    if error.errno in _FORBIDDEN:
        return f"{forbidden(path)}, or give another outputs folder"
    return (
        f"{error.filename or path} cannot be read ({error.strerror}); this does not mean that it is damaged: try "
        "again, or give another outputs folder"
    )


def _closed(path: Path) -> Path:
    for place in reversed(path.absolute().parents):
        if not os.access(place, os.X_OK):
            return place
    return path if os.path.lexists(path) else next(place for place in path.absolute().parents if place.exists())


def _owner(place: Path) -> str:
    try:
        owner = place.stat().st_uid
    except OSError:
        return ""
    try:
        return f", which belongs to {pwd.getpwuid(owner).pw_name}"
    except KeyError:
        return f", which belongs to user {owner}"
