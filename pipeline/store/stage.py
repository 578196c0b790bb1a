"""A stage: one kind of artifact, what it depends on, and how it is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from pipeline.store.artifacts import Artifact, Store


class Stage(ABC):
    """One kind of artifact of a job.

    ``name`` is its folder in the store. Raise ``version`` when its results change, so that results of older code are
    not reused.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """Return all that the result depends on, as plain values: their digest is the key of the artifact."""

    @abstractmethod
    def build(self, folder: Path) -> None:
        """Write the files of the artifact into an empty folder."""

    def instead(self) -> Artifact | None:
        """Make the artifact that stands in for this one because it is the same; return None if there is none."""
        return None

    @property
    def facts(self) -> dict[str, Any]:
        """Inputs of the stage, with its version."""
        return {"version": self.version, **self.inputs()}

    def find(self, store: Store) -> Artifact | None:
        """Return the finished artifact, or None if there is none yet."""
        return store.find(self.name, self.facts)

    def make(self, store: Store) -> Artifact:
        """Find the artifact, or build it and the artifacts that it needs."""
        return self.instead() or store.ensure(self.name, self.facts, self.build)
