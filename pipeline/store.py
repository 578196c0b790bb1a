"""Content-addressed results: keys, atomic writes, the manifest, and every path under the outputs folder.

An artifact is a folder ``store/<stage>/<key>``. Its key hashes the inputs that its stage declares, so a changed
setting makes a new artifact and an unchanged one is found again. It is built in a scratch folder and renamed into
place with its manifest already inside: a folder that is there is complete, and an interrupted build leaves nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
# Parts of an interrupted build are kept for so long after their last change: two weeks.
_UNFINISHED_SECONDS = 14 * 86400
# What a scratch folder is called: what is built, on which machine, by which process, and a unique word.
_OWNER = re.compile(r".+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.\w+")


def digest(value: object) -> str:
    """Short stable hash (16 hex digits) of a JSON-like value; the order of mapping keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=list, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically: readers see the old text or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        scratch.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=list) + "\n")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


@dataclass(frozen=True)
class Artifact:
    """A finished result: its folder, its key, and whether this process built it."""

    path: Path
    stage: str
    key: str
    built: bool
    seconds: float

    def file(self, name: str) -> Path:
        return self.path / name

    def manifest(self) -> dict[str, Any]:
        return json.loads(self.file(MANIFEST).read_text())


@dataclass
class Store:
    """The outputs folder. ``on_build`` hears the name of every stage that is really computed."""

    root: Path
    on_build: Callable[[str], None] = field(default=lambda stage: None)

    def __post_init__(self) -> None:
        self.root = Path(self.root).absolute()
        self.sweep_scratch()

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def scratch(self) -> Path:
        return self.root / "store" / ".scratch"

    def path(self, stage: str, key: str) -> Path:
        return self.root / "store" / stage / key

    def unfinished(self, stage: str, inputs: Mapping[str, object]) -> Path:
        """Where the finished parts of an artifact outlive an interrupted build. Removed once it is complete."""
        folder = self.root / "store" / ".unfinished" / f"{stage}-{digest({'stage': stage, **inputs})}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def find(self, stage: str, inputs: Mapping[str, object]) -> Artifact | None:
        """The finished artifact of these inputs, or None. A damaged one is set aside with a warning."""
        key = digest({"stage": stage, **inputs})
        path = self.path(stage, key)
        if not path.is_dir():
            return None
        if problem := _damage(path):
            aside = self.root / "store" / ".damaged" / f"{stage}-{key}-{uuid.uuid4().hex[:6]}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)
            log.warning("stored %s %s is damaged (%s): set aside as %s and computed again", stage, key, problem, aside)
            return None
        return Artifact(path, stage, key, built=False, seconds=0.0)

    def ensure(self, stage: str, inputs: Mapping[str, object], build: Callable[[Path], None]) -> Artifact:
        """Find the artifact of these inputs, or let ``build`` write its files into a folder and keep that."""
        if found := self.find(stage, inputs):
            return found
        self.on_build(stage)
        key = digest({"stage": stage, **inputs})
        start = time.monotonic()
        with self._scratch_folder(f"{stage}-{key}") as folder:
            build(folder)
            seconds = time.monotonic() - start
            write_json(folder / MANIFEST, _manifest(folder, stage, inputs, seconds))
            target = self.path(stage, key)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(folder, target)
            except OSError:
                # Another process finished the same artifact first; equal keys mean equal content.
                if not (target / MANIFEST).is_file():
                    raise
            shutil.rmtree(self.root / "store" / ".unfinished" / f"{stage}-{key}", ignore_errors=True)
        return Artifact(target, stage, key, built=True, seconds=seconds)

    def private(self, name: str) -> Path:
        """A path for files that this process alone needs; what it leaves there goes once it has ended."""
        return self.scratch / private_name(name)

    @contextmanager
    def _scratch_folder(self, name: str) -> Iterator[Path]:
        folder = self.private(name)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep_scratch(self) -> None:
        """Remove what killed processes of this machine left half-built, and parts that nobody has gone on with."""
        remove_orphans(self.scratch)
        unfinished = self.root / "store" / ".unfinished"
        for folder in unfinished.iterdir() if unfinished.is_dir() else ():
            if time.time() - folder.stat().st_mtime > _UNFINISHED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def private_name(name: str) -> str:
    """A file name that says which process of which machine it belongs to."""
    return f"{name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:6]}"


def remove_orphans(folder: Path, pattern: str = "*") -> None:
    """Remove the private folders of processes of this machine that are no more."""
    for path in folder.glob(pattern) if folder.is_dir() else ():
        owner = _OWNER.fullmatch(path.name)
        if owner and owner["host"] == _host() and not _alive(int(owner["pid"])):
            shutil.rmtree(path, ignore_errors=True)


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


def _manifest(folder: Path, stage: str, inputs: Mapping[str, object], seconds: float) -> dict[str, Any]:
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {
        "stage": stage,
        "inputs": dict(inputs),
        "files": files,
        "seconds": round(seconds, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _damage(path: Path) -> str | None:
    """What is wrong with an artifact's files, or None. Contents are compared up to 64 MiB, larger files by size."""
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        for name, facts in files.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != facts["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {facts['bytes']}"
            if facts["bytes"] <= 2**26 and file_digest(file) != facts["sha256"]:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest cannot be read: {error}"
    return None
