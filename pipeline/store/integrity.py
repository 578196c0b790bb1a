"""Checksums: they seal files, manifests and records, and find damaged ones.

Everything that is read back was sealed when it was written, so a truncated, corrupted or edited file is noticed before
anything is computed from it.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.common.access import NoAccess, reading

MANIFEST, CHECKSUM = "manifest.json", "checksum"
# Hashing lets other threads run, so several files are read at once, as fast as the disk allows.
_THREADS = 4
_KNOWN: dict[tuple[str, int, int, int], str] = {}


def digest(value: object) -> str:
    """Return a short stable hash (16 hex digits) of a JSON-like value; the order of mapping keys does not matter."""
    return _hash(value)[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def known_digest(path: Path) -> str:
    """Return ``file_digest``, cached in this process for as long as size, modification time and inode are the same.

    For keys that are needed again and again. Damage may leave all three as they were.
    """
    status = path.stat()
    state = str(path), status.st_size, status.st_mtime_ns, status.st_ino
    if state not in _KNOWN:
        _KNOWN[state] = file_digest(path)
    return _KNOWN[state]


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same facts with a checksum over all of them."""
    plain = _plain(dict(facts))
    return {**plain, CHECKSUM: _hash(plain)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the facts of a sealed JSON file, without their checksum.

    Raises ValueError if it is truncated, corrupted, edited or missing, and NoAccess if it cannot be read for now.
    """
    try:
        with reading(path):
            facts = json.loads(path.read_text(encoding="utf-8"))
    except NoAccess:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    if not isinstance(facts, dict) or CHECKSUM not in facts:
        raise ValueError("it has no checksum")
    if facts.pop(CHECKSUM) != _hash(facts):
        raise ValueError("it does not match its checksum")
    return facts


def facts_of_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file below a folder, by its relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_THREADS) as pool:
        sums = list(pool.map(file_digest, paths))
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": checksum}
        for path, checksum in zip(paths, sums, strict=True)
    }


def damage(artifact: Path) -> str | None:
    """Return what is wrong with an artifact's folder, in words, or None. Reads every byte of it.

    Raises NoAccess if that cannot be found out: this user may not read all of it, or the disk does not answer.
    """
    try:
        manifest = read_sealed(artifact / MANIFEST)
        if manifest["stage"] != artifact.parent.name or key_of(manifest) != artifact.name:
            return "its manifest belongs to another artifact"
        with reading(artifact):
            return _changed_file(artifact, manifest["files"])
    except NoAccess:
        raise
    except OSError as error:
        return f"it cannot be read: {error}"
    except ValueError as error:
        return f"its manifest: {error}"
    except (KeyError, TypeError, AttributeError):
        return "its manifest has an unknown format"


def _changed_file(artifact: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    for name, facts in files.items():
        try:
            found = (artifact / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing"
        if not stat.S_ISREG(found.st_mode):
            return f"{name} is not a file"
        if found.st_size != facts["bytes"]:
            return f"{name} has {found.st_size} bytes instead of {facts['bytes']}"
    with ThreadPoolExecutor(_THREADS) as pool:
        sums = pool.map(file_digest, [artifact / name for name in files])
        for (name, facts), checksum in zip(files.items(), sums, strict=True):
            if checksum != facts["sha256"]:
                return f"{name} does not match its checksum"
    return None


def key_of(manifest: Mapping[str, Any]) -> str:
    """Return the key of a manifest's stage and inputs."""
    return digest({"stage": manifest["stage"], **manifest["inputs"]})


def record_damage(record: Path) -> str | None:
    """Return what is wrong with a sealed JSON file, such as a job's record, or None.

    Raises NoAccess as `read_sealed` does.
    """
    try:
        read_sealed(record)
    except ValueError as error:
        return str(error)
    return None


def _plain(value: object) -> Any:
    """Return a value as JSON gives it back: text keys, lists for tuples."""
    return json.loads(json.dumps(value, default=list))


def _hash(value: object) -> str:
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
