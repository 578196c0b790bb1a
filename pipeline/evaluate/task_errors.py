"""Errors in a task's definition, data or functions, which lm-eval raises without the name of the task."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from lm_eval.api.task import Task

from pipeline.common.causes import causes
from pipeline.common.errors import deepest

# What a wrong definition, a row that lacks a column and a mistake in a function raise. Others are no task's fault.
_MISTAKES = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, AssertionError, NameError)
# lm-eval's loop over all tasks, whose variable names the last one.
_LOOP = "evaluate"


def task_of(error: BaseException) -> str | None:
    """Return the name of the task that lm-eval was working on when an error was raised; None outside of any."""
    for cause in reversed(causes(error)):
        for frame, _ in reversed(list(traceback.walk_tb(cause.__traceback__))):
            if frame.f_code.co_name == _LOOP:
                continue
            for found in (frame.f_locals.get(name) for name in ("self", "task")):
                if isinstance(found, Task) and (name := getattr(getattr(found, "config", None), "task", None)):
                    return str(name)
    return None


@contextmanager
def naming_tasks() -> Iterator[None]:
    """Name the task, and the line of its own function, in errors of tasks within the block: as a ValueError."""
    try:
        yield
    except _MISTAKES as error:
        name = task_of(error)
        if name is None or str(error).startswith(f"task {name}"):
            raise
        raise ValueError(f"task {name}: {deepest(error)}") from error
