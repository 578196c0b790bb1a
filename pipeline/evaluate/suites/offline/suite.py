"""Real benchmarks without a network, as a choice of the ``task`` group."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pipeline.config.component import optional
from pipeline.evaluate.harness_suite import HarnessSuite
from pipeline.evaluate.suite import TaskEntry
from pipeline.evaluate.suites.offline.sources import RUNS_CODE, SOURCES
from pipeline.evaluate.task_data import shipped_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OfflineSuite(HarnessSuite):
    """Benchmarks whose rows installed packages carry, asked as lm-eval asks them.

    ``names`` chooses some of them; None stands for all, HumanEval among them only with ``allow_code_execution``.
    ``metrics`` maps some of these names to main metrics that replace the definition's.
    """

    names: list[str] | None = None
    metrics: dict[str, str] | None = optional(None)

    chooses: ClassVar[tuple[str, ...]] = ("names", "metrics")

    def chosen(self) -> list[str]:
        """Return the names of the benchmarks to run."""
        if self.names is not None:
            return list(self.names)
        return [name for name in SOURCES if self.allow_code_execution or name not in RUNS_CODE]

    def entries(self) -> Sequence[TaskEntry]:
        main = {name: SOURCES[name].metric for name in self.chosen()} | (self.metrics or {})
        return [TaskEntry(f"offline_{name}", name, SOURCES[name].kind, main[name]) for name in self.chosen()]

    def definitions(self) -> list[str | dict[str, Any]]:
        from pipeline.evaluate.suites.offline.definitions import definition
        from pipeline.evaluate.suites.offline.rows import checked

        if left := [name for name in RUNS_CODE if self.names is None and not self.allow_code_execution]:
            log.info(
                "%s left out: it runs generated code; to include it, give allow_code_execution=true", ", ".join(left)
            )
        for name in self.chosen():
            if checked(name).left_out:
                log.info("%s", checked(name).summary(name))
        return [definition(name) for name in self.chosen()]

    def needs_definitions(self) -> bool:
        return False

    def left_out(self) -> dict[str, int]:
        from pipeline.evaluate.suites.offline.rows import checked

        return {name: checked(name).left_out.total() for name in self.chosen()}

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"names": self.chosen(), "files": _digests(self.chosen())}

    def conditions(self) -> dict[str, Any]:
        # The files of every installed benchmark: runs that choose different benchmarks stay comparable.
        return super().conditions() | {"files": _digests(name for name in SOURCES if not _missing(name))}

    def problems(self) -> list[str]:
        found = super().problems()
        if self.names is not None and not self.names:
            return [*found, f"task.names is empty; choose from {', '.join(SOURCES)}, or null for all"]
        for name in self.names or ():
            if str(name) not in SOURCES:
                near = difflib.get_close_matches(str(name), SOURCES, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                found.append(f"task.names: {name} does not exist; {hint}choose from {', '.join(SOURCES)}")
            elif name in RUNS_CODE and not self.allow_code_execution:
                found.append(
                    f"{name} runs generated code: give allow_code_execution=true, or leave it out of task.names"
                )
        if repeated := sorted({str(name) for name in self.names or () if (self.names or []).count(name) > 1}):
            found.append(f"task.names: {', '.join(repeated)} appears twice; give each name once")
        found += [
            f"task.metrics: {name} is not among task.names" for name in self.metrics or () if name not in self.chosen()
        ]
        missing = (_missing(name) for name in self.chosen() if str(name) in SOURCES)
        return found + list(dict.fromkeys(problem for problem in missing if problem))


def _missing(name: str) -> str | None:
    """Return in plain words what a benchmark needs that is not installed, or None."""
    try:
        SOURCES[name].paths()
    except ValueError as error:
        return str(error)
    return None


def _digests(names: Iterable[str]) -> dict[str, str]:
    """Return the `shipped_digest` of every file that the benchmarks depend on, by benchmark and file name."""
    return {f"{name}/{path.name}": _digest(path) for name in names for path in SOURCES[name].paths()}


@cache
def _digest(path: Path) -> str:
    return shipped_digest(path)
