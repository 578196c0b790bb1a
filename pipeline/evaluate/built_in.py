"""Index of the tasks that lm-eval itself has."""

from __future__ import annotations

from functools import cache

from lm_eval.tasks import TaskManager


@cache
def built_in_tasks() -> TaskManager:
    """Return lm-eval's manager of its own tasks: it reads 14,000 files, which takes seconds, so once in a process."""
    return TaskManager()
