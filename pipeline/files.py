"""Files that are replaced in one step, and private ones that say whose they are: a killed process leaves no litter."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Parts of an interrupted build, and private files of other machines, are kept for so long after their last change.
KEPT_SECONDS = 14 * 86400
# What a private file or folder is called: what it is, on which machine, by which process, and a unique word.
_OWNER = re.compile(r".+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.\w{6}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A private path beside ``path`` to write to, which then takes its place: readers see the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(private_name(f".{path.name}"))
    try:
        yield scratch
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


def private_name(name: str) -> str:
    """A file name that says which process of which machine it belongs to."""
    return f"{name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:6]}"


def remove_orphans(folder: Path, pattern: str = "*") -> None:
    """Remove private files and folders of processes of this machine that are no more, and old ones of others."""
    for path in folder.glob(pattern) if folder.is_dir() else ():
        owner = _OWNER.fullmatch(path.name)
        if owner is None:
            continue
        ours = owner["host"] == _host()
        if not _alive(int(owner["pid"])) if ours else age_of(path) > KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.unlink(missing_ok=True)


def age_of(path: Path) -> float:
    """Seconds since a file or folder was changed; 0 if it has just gone."""
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
