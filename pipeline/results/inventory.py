"""Inventory of the store: its artifacts, their sizes, and which of them a recorded job needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.common.access import NoAccess, reading
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.integrity import MANIFEST

_INCIDENTAL = ("stages", "outputs", "export", "figures", "wandb")
_KEY = re.compile(r"[0-9a-f]{16}")


class Shelf:
    """All artifacts of a store. Paths in records and manifests are looked up here, and never used as paths."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._artifacts = {(artifact.stage, artifact.key): artifact for artifact in store.artifacts()}
        self._facts: dict[tuple[str, str], dict[str, Any]] = {}
        self._parents: dict[tuple[str, str], list[Artifact]] = {}

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self._artifacts.values())

    def named(self, path: str) -> Artifact | None:
        """Return the artifact at a path relative to the outputs folder, or None."""
        parts = Path(path).parts
        return self._artifacts.get((parts[1], parts[2])) if len(parts) == 3 and parts[0] == "store" else None

    def facts(self, artifact: Artifact) -> dict[str, Any]:
        """Return the manifest, whether its checksum matches or not; empty if it cannot be read."""
        name = artifact.stage, artifact.key
        if name not in self._facts:
            self._facts[name] = plain_json(artifact.file(MANIFEST))
        return self._facts[name]

    def parents(self, artifact: Artifact) -> list[Artifact]:
        """Return the artifacts that this one was made from: their keys are among its inputs."""
        name = artifact.stage, artifact.key
        if name not in self._parents:
            keys = _keys_in(self.facts(artifact).get("inputs"))
            self._parents[name] = [found for key in keys for found in self._by_key.get(key, ())]
        return self._parents[name]

    def used_by(self, records: Iterable[Mapping[str, Any]]) -> set[Artifact]:
        """Return the artifacts that these job records (as plain facts) need.

        These are the artifacts that they name as a result or as built, those built for their configuration by the
        current version of a stage (an interrupted job has not recorded them), and everything these were made from.
        """
        needed: set[Artifact] = set()
        waiting: list[Artifact] = []
        configs = set()
        for record in records:
            cost, artifacts, config = (_mapping(record.get(name)) for name in ("cost", "artifacts", "config"))
            names = [*(f"store/{built}" for built in cost), *(str(path) for path in artifacts.values())]
            waiting += [artifact for name in names if (artifact := self.named(name))]
            configs |= {_identity(config)} if config else set()
        made_for = {a: _identity(_mapping(self.facts(a).get("config"))) for a in self if a not in self._outdated}
        waiting += [artifact for artifact, config in made_for.items() if config in configs]
        while waiting:
            artifact = waiting.pop()
            if artifact not in needed:
                needed.add(artifact)
                waiting += self.parents(artifact)
        return needed

    @cached_property
    def _by_key(self) -> dict[str, list[Artifact]]:
        by_key: dict[str, list[Artifact]] = {}
        for artifact in self:
            by_key.setdefault(artifact.key, []).append(artifact)
        return by_key

    @cached_property
    def _outdated(self) -> set[Artifact]:
        """Artifacts of an older version of their stage than others here have, and those made from them."""
        newest: dict[str, int] = {}
        for artifact in self:
            newest[artifact.stage] = max(newest.get(artifact.stage, 0), self._version(artifact))
        found = {artifact for artifact in self if self._version(artifact) < newest[artifact.stage]}
        grown = True
        while grown:
            more = {a for a in self if a not in found and any(parent in found for parent in self.parents(a))}
            found |= more
            grown = bool(more)
        return found

    def _version(self, artifact: Artifact) -> int:
        version = _mapping(self.facts(artifact).get("inputs")).get("version")
        return version if isinstance(version, int) else 0


def plain_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, whether sealed or not; empty if there is none or it is damaged.

    Raises NoAccess for a file that this user may not read: what it needs is unknown.
    """
    try:
        with reading(path):
            facts = json.loads(path.read_text(encoding="utf-8"))
    except NoAccess:
        raise
    except (OSError, ValueError, RecursionError):
        return {}
    return _mapping(facts)


def size_of(path: Path) -> int:
    """Return the size in bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file() or file.is_symlink())


def readable(size: float) -> str:
    """Return a number of bytes as text, in a suitable unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _identity(config: Mapping[str, Any]) -> str:
    """Return a flat configuration as JSON, except how far a job goes and where its results are kept."""
    return json.dumps({key: value for key, value in sorted(config.items()) if key.partition(".")[0] not in _INCIDENTAL})


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _keys_in(value: Any) -> Iterator[str]:
    if isinstance(value, str) and _KEY.fullmatch(value):
        yield value
    elif isinstance(value, dict):
        yield from _keys_in(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _keys_in(item)
