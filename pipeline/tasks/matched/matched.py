"""The matched suite as a choice of the ``task`` group."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pipeline.integrity import file_digest
from pipeline.tasks.base import TaskEntry, TaskSuite
from pipeline.tasks.matched.suite import FAMILIES, INCLUDE_PATH, items_file, matched_tasks


@dataclass(frozen=True)
class MatchedSuite(TaskSuite):
    """The same items asked twice, as generation and as multiple choice, for each of ``families``."""

    families: list[str] = field(default_factory=lambda: list(FAMILIES))

    chooses: ClassVar[tuple[str, ...]] = ("families",)

    def entries(self) -> Sequence[TaskEntry]:
        return [TaskEntry(task.name, task.family, task.kind, task.metric) for task in matched_tasks(self.families)]

    def include_path(self) -> Path:
        return INCLUDE_PATH

    def identity(self) -> dict[str, Any]:
        # What is asked and how: the items, and the task files with their prompts, shots and limits.
        files = [items_file(family) for family in FAMILIES] + sorted(INCLUDE_PATH.glob("*.yaml"))
        return super().identity() | {"files": {path.name: file_digest(path)[:16] for path in files}}

    def problems(self) -> list[str]:
        found = super().problems()
        if not self.families:
            return [*found, f"task.families is empty; choose from {', '.join(FAMILIES)}"]
        for family in self.families:
            if family not in FAMILIES:
                near = difflib.get_close_matches(str(family), FAMILIES, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                found.append(f"task.families: {family} does not exist; {hint}choose from {', '.join(FAMILIES)}")
        return found
