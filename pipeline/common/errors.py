"""Causes of failures, each in one line without secrets."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pipeline.common.access import NoAccess, forbidden
from pipeline.common.causes import causes, own_line
from pipeline.common.secrets import redact

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Torch's own class for too little GPU memory is recognised by its name: torch need not be imported for it.
_MEMORY = ("MemoryError", "OutOfMemoryError")
_OUT_OF_MEMORY = "out of memory"


def plain(error: BaseException) -> str:
    """Return an error as one line without secrets.

    Our own errors (ValueError, NoAccess) are sentences; others get their type, or a way out where there is a usual one.
    Errors from code of the user's own get the line that raised them.
    """
    name, text = type(error).__name__, redact(" ".join(str(error).split())) or "no message"
    # Libraries that write files themselves raise their own classes of errors, so the text counts too.
    if getattr(error, "errno", None) in _FULL or os.strerror(errno.ENOSPC) in text:
        return (
            f"the disk is full: {text}; free some space (python -m pipeline.results gc) and run the same command again"
        )
    if name in _MEMORY:
        return f"{_OUT_OF_MEMORY}: {name}: {text}"
    if isinstance(error, PermissionError) and isinstance(error.filename, str):
        made = not os.path.lexists(error.filename)
        return forbidden(Path(error.filename), write=made or os.access(error.filename, os.R_OK))
    place = f" (in {line})" if (line := own_line(error)) else ""
    return f"{text}{place}" if isinstance(error, ValueError | NoAccess) else f"{name}: {text}{place}"


def deepest(error: BaseException) -> str:
    """Return the first cause of an error in one line: libraries that load data wrap it again and again."""
    return plain(causes(error)[-1])


def lacked_memory(cause: str | None) -> bool:
    """Return whether a cause, in the words of `plain`, is too little memory."""
    return cause is not None and cause.startswith((_OUT_OF_MEMORY, *_MEMORY))
