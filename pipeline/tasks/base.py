"""The contract of a task suite: which lm-eval tasks to run, and how to read their results.

Suites are imported while the configuration is checked, so their modules import nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.component import Component, Positive, speed_only

GENERATIVE, MULTIPLE_CHOICE = "generative", "multiple_choice"


@dataclass(frozen=True)
class TaskEntry:
    """One lm-eval task: its ``name`` there, the ``task`` that tables show, its kind and its main metric."""

    name: str
    task: str
    kind: str
    metric: str


@dataclass(frozen=True)
class TaskSuite(Component):
    """A set of lm-eval tasks. ``limit`` items of each are evaluated, all if None; ``batch_size`` prompts at a time."""

    limit: Positive | None = None
    batch_size: Positive = speed_only(32)

    def entries(self) -> Sequence[TaskEntry]:
        """The tasks to run."""
        raise TypeError(f"task suite {type(self).__name__} does not define entries()")

    def include_path(self) -> Path | None:
        """Folder with task YAMLs of the suite's own, if any."""
        return None

    def problems(self) -> list[str]:
        """What is wrong with the configured values, in plain words."""
        return []
