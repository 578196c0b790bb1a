"""Files that are replaced in one step, and private files named after their process: a killed one leaves no litter."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# How long parts of an interrupted build, and private files of other machines, are kept after their last change.
KEPT_SECONDS = 14 * 86400
# The permissions of everybody but the owner, and those of a file that cannot be run.
_OTHERS, _NOT_RUN = 0o077, 0o666
# The name of a private file or folder: what it holds, its machine, its process, and a unique word.
_OWNER = re.compile(r".+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.\w{6}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a private path beside ``path`` to write to, which then replaces it: readers see the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(private_name(f".{path.name}"))
    try:
        yield scratch
        open_as_new(scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step."""
    with replacing(path) as scratch:
        scratch.write_bytes(content)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file in one step."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, default=list) + "\n").encode())


def open_as_new(path: Path) -> None:
    """Give a file, or everything in a folder, the permissions that a new one here would get.

    Some libraries write files that only their owner can read, whatever the umask is. Only the permissions of such files
    change, and none is taken away.
    """
    tree = [path, *path.rglob("*")] if path.is_dir() else [path]
    closed = [(file, mode) for file in tree if not (mode := stat.S_IMODE(file.lstat().st_mode)) & _OTHERS]
    if not closed:
        return
    # Neither the umask nor the defaults of a file system can be queried: a new folder shows what they give.
    model = path.parent / private_name(".mode")
    model.mkdir()
    given = stat.S_IMODE(model.stat().st_mode)
    model.rmdir()
    for file, mode in closed:
        if not file.is_symlink():
            file.chmod(mode | (given if file.is_dir() else given & _NOT_RUN))


def private_name(name: str) -> str:
    """Return a file name that says which process of which machine it belongs to."""
    return f"{name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:6]}"


def remove_orphans(folder: Path, pattern: str = "*") -> None:
    """Remove private files and folders of dead processes of this machine, and old ones of other machines."""
    for path in entries(folder, pattern):
        owner = _OWNER.fullmatch(path.name)
        if owner is None:
            continue
        ours = owner["host"] == _host()
        if not _alive(int(owner["pid"])) if ours else age_of(path) > KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.unlink(missing_ok=True)


def entries(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Yield the entries of a folder; none if it is missing or closed to this user, since others sweep it."""
    return folder.glob(pattern) if os.access(folder, os.R_OK | os.X_OK) else iter(())


def age_of(path: Path) -> float:
    """Return the seconds since a file or folder was changed; 0 if it has just gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _host() -> str:
    return socket.gethostname().replace(".", "-")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
