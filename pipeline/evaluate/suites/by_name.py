"""Any task, group or tag of lm-eval by its name, as a choice of the ``task`` group."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from pipeline.evaluate.harness_suite import HarnessSuite
from pipeline.evaluate.suite import TaskEntry
from pipeline.evaluate.suites.included import code_in, content_of
from pipeline.evaluate.suites.names import names as known_names
from pipeline.evaluate.suites.names import runs_code


@dataclass(frozen=True)
class LmEvalSuite(HarnessSuite):
    """``names`` of lm-eval's tasks, groups or tags, with its own definitions; data comes from the hub.

    ``include`` is a folder with further task YAMLs. ``metrics`` maps tasks to main metrics that replace the
    definition's.
    """

    names: list[str] = field(default_factory=list)
    include: str | None = None
    metrics: dict[str, str] | None = None

    needs_hub: ClassVar[bool] = True
    chooses: ClassVar[tuple[str, ...]] = ("names", "metrics")

    def entries(self) -> Sequence[TaskEntry]:
        return [TaskEntry(name, name, metric=(self.metrics or {}).get(name)) for name in self.names]

    def include_path(self) -> Path | None:
        return Path(os.path.expanduser(self.include)).absolute() if self.include else None

    def foreign_code(self) -> list[str]:
        folder = self.include_path()
        return [] if folder is None else code_in(folder)

    def needs_definitions(self) -> bool:
        """Return False where the folder defines every name: skipping lm-eval's own files saves seconds."""
        return not set(self.names) <= set(self._included())

    def identity(self) -> dict[str, Any]:
        folder = self.include_path()
        files = [] if folder is None else content_of(folder)
        return super().identity() | {"include": files, "lm_eval": metadata.version("lm_eval")}

    def problems(self) -> list[str]:
        found = super().problems()
        if not self.names:
            found.append("task.names is empty; give names of lm-eval tasks, such as task.names=[hellaswag,gsm8k]")
        folder = self.include_path()
        if folder is not None and not os.path.isdir(folder):
            return [*found, f"task.include={self.include} is not a folder; give one with lm-eval task YAMLs"]
        try:
            foreign = self.foreign_code()
            self.identity()
        except ValueError as error:
            return list(dict.fromkeys([*found, str(error)]))
        files = known_names() | self._included()
        unknown = [name for name in self.names if name not in files]
        found += self._unknown(unknown) if unknown else []
        found += [
            f"task.metrics: {name} is not among task.names" for name in self.metrics or () if name not in self.names
        ]
        running = [name for name in self.names if name in files and runs_code(files[name])]
        if running and not self.allow_code_execution:
            found.append(
                f"{' and '.join(running)} run{'s' if len(running) == 1 else ''} generated code: give "
                "allow_code_execution=true, or other task.names"
            )
        if foreign and not self.allow_code_execution:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            found.append(
                f"task.include={self.include} refers to Python code, in {foreign[0]}{more}, which would run with your "
                "permissions: give allow_code_execution=true if you have read and trust it, or another folder"
            )
        return found

    def _unknown(self, names: Sequence[str]) -> list[str]:
        """Return a message for each name that lm-eval's own index, slower but complete, does not have either."""
        from pipeline.evaluate.built_in import built_in_tasks

        known = built_in_tasks().all_tasks
        found = []
        for name in names:
            if name in known:
                continue
            near = difflib.get_close_matches(str(name), [*known, *self._included()], n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            found.append(f"task.names: lm-eval has no {name}; {hint}`lm-eval ls tasks` lists all {len(known)}")
        return found

    def _included(self) -> dict[str, Path]:
        folder = self.include_path()
        return known_names(folder) if folder is not None and os.path.isdir(folder) else {}
