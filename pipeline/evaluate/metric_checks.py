"""Checks for unavailable metrics while tasks are loaded, since lm-eval would fail at the end, or silently."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.registry import metric_registry

from pipeline.evaluate.code.code_eval import configurations
from pipeline.evaluate.suite import TaskSuite

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task


def unknown_metric(definitions: Iterable[Any], index: Mapping[str, Any]) -> str | None:
    """Return a message about the first metric that lm-eval does not have, of tasks that could not be loaded, or None.

    ``definitions`` are names or whole configurations, ``index`` is a ``TaskManager``'s.
    """
    for definition in definitions:
        for config in configurations(definition, index, set()):
            for metric in _registered_elsewhere(config):
                return _unknown(str(config.get("task")), metric)
    return None


def check_known(tasks: Mapping[str, Task]) -> None:
    """Raise ValueError for a metric that lm-eval did not find but would call for every answer."""
    for name, task in tasks.items():
        functions: Mapping[str, Any] = getattr(task, "_metric_fn_list", {})
        lost = [metric for metric, function in functions.items() if function is None]
        # A definition with ``process_results`` scores answers by that one function for all metrics.
        if task.get_config("process_results") is not None or not lost:
            continue
        if task.OUTPUT_TYPE == "generate_until" or len(lost) == len(functions):
            raise ValueError(_unknown(name, lost[0]))


def check_chosen(suite: TaskSuite, tasks: Mapping[str, Task], groups: Mapping[str, Group]) -> None:
    """Raise ValueError for a chosen main metric that its task or group does not report."""
    for entry in suite.entries():
        if entry.metric is None:
            continue
        if (group := groups.get(entry.name)) is not None:
            known = [about.metric for about in group.aggregate_metric_list or ()]
        elif (task := tasks.get(entry.name)) is not None and not _names_its_own(task):
            known = list(task.aggregation())
        else:
            continue
        if entry.metric not in known:
            raise ValueError(f"task {entry.task} reports no {entry.metric}; {_near(entry.metric, known)}")


def _names_its_own(task: Task) -> bool:
    """Return whether functions of the definition decide under which names it reports metrics."""
    metrics = task.get_config("metric_list") or ()
    return task.get_config("process_results") is not None or any(callable(about.get("metric")) for about in metrics)


def _registered_elsewhere(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of metrics that are not lm-eval's own, for a task that does not compute them itself."""
    if config.get("process_results") is not None:
        return
    for about in config.get("metric_list") or ():
        metric = about.get("metric") if isinstance(about, Mapping) else None
        if isinstance(metric, str) and "/" not in metric and metric not in metric_registry:
            yield metric


def _unknown(task: str, metric: str) -> str:
    known = sorted(metric_registry.keys())
    return f"task {task}: neither lm-eval nor Hugging Face's evaluate has a metric {metric}; {_near(metric, known)}"


def _near(metric: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(metric, known, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}choose from {', '.join(known)}"
