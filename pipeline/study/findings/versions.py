"""Versions of the stages: those of the code, and those that made the artifacts of jobs."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.store.artifacts import Store
from pipeline.store.integrity import MANIFEST, read_sealed
from pipeline.store.records import JobRecord
from pipeline.store.stage import Stage


def versions_of_code() -> dict[str, int]:
    """Return the version of every stage by its name."""
    # Their modules define the stages.
    from pipeline.capture import stage as capture
    from pipeline.evaluate import stage as evaluate
    from pipeline.measure import stage as measure
    from pipeline.prune import stage as prune

    modules = (prune, evaluate, capture, measure)
    kinds = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    return {kind.name: kind.version for kind in kinds if issubclass(kind, Stage) and kind is not Stage}


def versions_of_jobs(records: Iterable[JobRecord], store: Store, roles: Iterable[str]) -> dict[str, int]:
    """Return the versions of the stages that made the artifacts of these roles; the oldest of several.

    Raises OSError or ValueError for an artifact that is missing or damaged.
    """
    found: dict[str, int] = {}
    for record in records:
        for role in roles:
            if path := record.artifacts.get(role):
                manifest = read_sealed(store.root / path / MANIFEST)
                name, version = str(manifest["stage"]), int(manifest["inputs"]["version"])
                found[name] = min(version, found.get(name, version))
    return found
