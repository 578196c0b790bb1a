"""Digest of the sources of this package: a change of the code changes what it makes of the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


@cache
def sources_digest(*folders: Path) -> str:
    """Return a SHA-256, in hexadecimal, of the files of this package and of further folders, by path and content."""
    found = hashlib.sha256()
    for folder in (_PACKAGE, *folders):
        for path in _files(folder):
            content = path.read_bytes()
            found.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return found.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
