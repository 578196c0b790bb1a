"""The contract of a task suite: which tasks to run, and under which conditions. `pipeline.evaluate.ask` runs them.

Suites are imported while the configuration is checked, so their modules import nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.config.component import Component, speed_only
from pipeline.config.types import Part, Positive

GENERATIVE, MULTIPLE_CHOICE, RETRIEVAL, PERPLEXITY = "generative", "multiple_choice", "retrieval", "perplexity"


@dataclass(frozen=True)
class TaskEntry:
    """One task or group of lm-eval: its ``name`` there, the ``task`` that tables show, its kind and its main metric.

    Kind and metric are read from the definition where they are None.
    """

    name: str
    task: str
    kind: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class TaskSuite(Component):
    """A set of tasks. The first ``limit`` items of each are evaluated, a fraction of them below 1, all if None.

    ``batch_size`` prompts are evaluated at a time.

    ``shots`` examples precede an item: one number for all tasks, or by task; a task's own number if None.
    ``chat_template`` puts prompts into the model's chat format. Tasks that run generated programs need
    ``allow_code_execution``.
    """

    limit: Positive | Part | None = None
    shots: int | dict[str, int] | None = None
    chat_template: bool = False
    # A permission decides whether a task runs, never its result.
    allow_code_execution: bool = speed_only(False)
    batch_size: Positive = speed_only(32)

    # Whether the tasks need a model that writes text; if not, encoders are evaluated too.
    writes_text: ClassVar[bool] = True
    # Whether the data may have to be fetched from the hub.
    needs_hub: ClassVar[bool] = False
    # Fields that choose tasks: they change which tasks are asked, not how a task is asked.
    chooses: ClassVar[tuple[str, ...]] = ()

    @property
    def is_scored(self) -> bool:
        """Whether answers are scored, or only kept."""
        return True

    def entries(self) -> Sequence[TaskEntry]:
        """Return the tasks to run."""
        raise TypeError(f"task suite {type(self).__name__} does not define entries()")

    def definitions(self) -> list[str | dict[str, Any]]:
        """Return what lm-eval's ``TaskManager.load`` takes for the entries: names, or whole configurations."""
        return [entry.name for entry in self.entries()]

    def include_path(self) -> Path | None:
        """Return the folder with the suite's own task YAMLs, if any; lm-eval's own are left out then."""
        return None

    def foreign_code(self) -> list[str]:
        """Describe where the suite's own task files name Python code that is not ours.

        Raises ValueError for task files that cannot be read.
        """
        return []

    def needs_definitions(self) -> bool:
        """Return whether lm-eval's own task files are looked up by name."""
        return self.include_path() is None

    def left_out(self) -> dict[str, int]:
        """Return how many rows of the data could not be used, by task."""
        return {}

    def problems(self) -> list[str]:
        """Return what is wrong with the configured values, in plain words."""
        numbers = self.shots if isinstance(self.shots, Mapping) else {"": self.shots}
        wrong = [number for number in numbers.values() if not (number is None or (_whole(number) and number >= 0))]
        if wrong:
            return [f"task.shots={self.shots} should be at least 0, {{task: number}}, or null for each task's own"]
        return []

    def shots_of(self, task: str) -> int | None:
        """Return the number of examples before an item of a task; None for the task's own."""
        return self.shots.get(task) if isinstance(self.shots, Mapping) else self.shots

    def conditions(self) -> dict[str, Any]:
        """Return how each task is asked: the identity without the choice of tasks.

        Only scores under equal conditions are comparable.
        """
        return {key: value for key, value in self.identity().items() if key not in self.chooses}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
