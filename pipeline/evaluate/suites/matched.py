"""The matched suite as a choice of the ``task`` group."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pipeline.data.matched.suite import FAMILIES, INCLUDE_PATH, METRICS, items_file, matched_tasks
from pipeline.evaluate.harness_suite import HarnessSuite
from pipeline.evaluate.suite import TaskEntry
from pipeline.evaluate.task_data import shipped_digest


@dataclass(frozen=True)
class MatchedSuite(HarnessSuite):
    """The same items of each of ``families``, asked as generation and as multiple choice, or in one of ``kinds``."""

    families: list[str] = field(default_factory=lambda: list(FAMILIES))
    kinds: list[str] = field(default_factory=lambda: list(METRICS))

    chooses: ClassVar[tuple[str, ...]] = ("families", "kinds")

    def entries(self) -> Sequence[TaskEntry]:
        asked = (task for task in matched_tasks(self.families) if task.kind in self.kinds)
        return [TaskEntry(task.name, task.family, task.kind, task.metric) for task in asked]

    def include_path(self) -> Path:
        return INCLUDE_PATH

    def identity(self) -> dict[str, Any]:
        # What is asked and how: the items, and the task files with their prompts, shots and limits.
        files = [items_file(family) for family in FAMILIES] + sorted(INCLUDE_PATH.glob("*.yaml"))
        return super().identity() | {"files": {path.name: shipped_digest(path) for path in files}}

    def problems(self) -> list[str]:
        found = super().problems()
        for key, given, known in (("families", self.families, FAMILIES), ("kinds", self.kinds, list(METRICS))):
            if not given:
                found.append(f"task.{key} is empty; choose from {', '.join(known)}")
            for name in given:
                if name not in known:
                    near = difflib.get_close_matches(str(name), known, n=1)
                    hint = f"did you mean {near[0]}? " if near else ""
                    found.append(f"task.{key}: {name} does not exist; {hint}choose from {', '.join(known)}")
        return found
