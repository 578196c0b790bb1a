"""Only regular files are read: a pipe would keep its reader waiting, and a device may never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check_regular(path: Path) -> None:
    """Raise OSError, with the reason in plain words, unless ``path`` is a file (or a link to one) that can be read."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise OSError(errno.EINVAL, "its name contains a character that no file name can have") from error
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "it is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a regular file")
    if not os.access(path, os.R_OK):
        raise OSError(errno.EACCES, "no permission to read it")
