"""lm-eval's tasks of a suite: loaded once for all jobs of a process, with shots and seeds set, or refused at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import lm_eval.utils
from jinja2 import Environment, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.tasks import TaskManager

from pipeline.common.causes import own_line
from pipeline.common.errors import deepest
from pipeline.data.hub import from_cache_only, why_unreachable
from pipeline.evaluate.beside_definition import data_beside_definitions
from pipeline.evaluate.built_in import built_in_tasks
from pipeline.evaluate.code.code_eval import bypasses_sandbox, needs_code_execution, sandboxed_code_eval
from pipeline.evaluate.harness_suite import HarnessSuite
from pipeline.evaluate.metric_checks import check_chosen, check_known, unknown_metric
from pipeline.evaluate.metrics import main_metric
from pipeline.evaluate.suite import GENERATIVE, MULTIPLE_CHOICE, PERPLEXITY, TaskEntry
from pipeline.evaluate.task_data import check_examples, reads_local_data
from pipeline.evaluate.task_errors import naming_tasks, task_of
from pipeline.store.integrity import digest

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task

_KINDS = {
    "multiple_choice": MULTIPLE_CHOICE,
    "generate_until": GENERATIVE,
    # Scored by whether greedy decoding would write the answer.
    "loglikelihood": GENERATIVE,
    "loglikelihood_rolling": PERPLEXITY,
}
# Output types whose metrics compare likelihoods.
_BY_LIKELIHOOD = ("multiple_choice", "loglikelihood")
# lm-eval's metric of answers that are not scored.
UNSCORED = "bypass"
# Number of suites that stay loaded, since a sweep may alternate between them.
_KEPT = 4
_LOADED: dict[str, HarnessTasks] = {}


def _sandboxed(templates: Environment) -> Environment:
    """Return the templates without a way from a value to Python's own objects: prompts are data, not programs."""
    safe = SandboxedEnvironment(
        loader=templates.loader,
        undefined=templates.undefined,
        keep_trailing_newline=templates.keep_trailing_newline,
    )
    safe.filters.update(templates.filters)
    return safe


# Task files write their prompts as templates, which lm-eval would let do anything.
lm_eval.utils.env = _sandboxed(lm_eval.utils.env)


@dataclass(frozen=True)
class HarnessTasks:
    """``tasks`` and ``groups`` by name, as lm-eval's evaluator takes them."""

    tasks: dict[str, Task]
    groups: dict[str, Group]
    group_map: dict[str, list[str]]

    def as_harness(self) -> Any:
        return {"tasks": self.tasks, "groups": self.groups, "group_map": self.group_map}


@dataclass(frozen=True)
class Row:
    """One row of the score table: a task, or a group that lm-eval aggregates; the tasks ``leaves`` hold its items."""

    name: str
    task: str
    kind: str
    metric: str
    leaves: tuple[str, ...]


def load_tasks(suite: HarnessSuite, seed: int) -> HarnessTasks:
    """Load the suite's tasks.

    Raises ValueError in plain words for unknown names, an unreachable hub, or missing consent.
    """
    key = digest({"suite": suite.identity(), "seed": seed})
    if key not in _LOADED:
        for oldest in list(_LOADED)[: 1 - _KEPT]:
            del _LOADED[oldest]
        _LOADED[key] = _load(suite)
    loaded = _LOADED[key]
    for task in loaded.tasks.values():
        # The few-shot examples of an item depend on the seed alone, not on earlier requests.
        task.set_fewshot_seed(seed=seed)
    return loaded


def _load(suite: HarnessSuite) -> HarnessTasks:
    include, foreign = suite.include_path(), suite.foreign_code()
    content = digest(suite.identity().get("include"))
    manager = _manager(str(include) if include else None, suite.needs_definitions(), content)
    definitions = suite.definitions()
    _refuse_unsafe(suite, [own for own in definitions if isinstance(own, str)], manager)
    if foreign and not suite.allow_code_execution:
        raise ValueError(f"task.include refers to Python code, in {'; '.join(foreign)}: give allow_code_execution=true")
    reason = why_unreachable() if suite.needs_hub else None
    with ExitStack() as stack:
        # Otherwise no task runs programs, and what would be replaced takes a while to import.
        if suite.allow_code_execution:
            stack.enter_context(sandboxed_code_eval())
        stack.enter_context(data_beside_definitions())
        if reason:
            stack.enter_context(from_cache_only())
        built = _build(manager, suite, definitions, reason)
    tasks = built["tasks"]
    loaded = HarnessTasks(tasks, built.get("groups", {}), built.get("group_map", {}))
    check_known(tasks)
    check_chosen(suite, tasks, loaded.groups)
    for row in rows_of(suite, loaded):
        for task in (tasks[leaf] for leaf in row.leaves):
            own = task.get_config("num_fewshot") or 0
            wanted = suite.shots_of(row.task)
            task.set_config("num_fewshot", own if wanted is None else wanted)
            check_examples(task, row.task)
    for task in tasks.values():
        _change(task, suite)
    return loaded


def _change(task: Task, suite: HarnessSuite) -> None:
    """Set how a task generates, and whether its answers are scored, as lm-eval's ``simple_evaluate`` does."""
    if suite.generation and task.OUTPUT_TYPE == "generate_until":
        # The definition's own mapping may be shared with the tasks of other suites.
        task.set_config("generation_kwargs", {**task.get_config("generation_kwargs"), **suite.generation})
    if suite.samples > 1 and task.OUTPUT_TYPE == "generate_until":
        task.set_config("repeats", suite.samples)
    if suite.predict_only:
        task.override_metric(UNSCORED)


@cache
def _manager(include: str | None, defaults: bool, content: str) -> TaskManager:
    """Return lm-eval's index of task files, cached by ``content`` of the files; lm-eval's own take seconds to index."""
    if include is None and defaults:
        return built_in_tasks()
    return TaskManager(include_path=include, include_defaults=defaults)


def _refuse_unsafe(suite: HarnessSuite, names: Sequence[str], manager: TaskManager) -> None:
    """Raise ValueError for tasks that run generated code without permission, or outside the sandbox.

    Whole configurations come from the suites, which ask for permission themselves.
    """
    index = manager.task_index
    running = [name for name in names if needs_code_execution(name, index)]
    if running and not suite.allow_code_execution:
        raise ValueError(
            f"{', '.join(running)} runs generated code: give allow_code_execution=true, or leave it out of task.names"
        )
    if bare := [name for name in running if bypasses_sandbox(name, index)]:
        raise ValueError(
            f"{', '.join(bare)} runs generated code outside the sandbox, so it is refused; leave it out of task.names"
        )


def _build(manager: TaskManager, suite: HarnessSuite, definitions: list[Any], unreachable: str | None) -> Any:
    try:
        return manager.load(definitions)
    except (KeyError, ValueError) as error:
        if metric := unknown_metric(definitions, manager.task_index):
            raise ValueError(metric) from error
        why = deepest(error) if own_line(error) else " ".join(str(error).split())
        raise ValueError(f"task {task_of(error) or suite.name}: {why}") from error
    except TemplateError as error:
        who = task_of(error) or suite.name
        raise ValueError(f"task {who}: one of its prompt templates cannot be rendered ({error})") from error
    except Exception as error:
        names = ", ".join(entry.name for entry in suite.entries())
        if reads_local_data(definitions, manager.task_index):
            raise ValueError(f"task {names}: its data cannot be read: {deepest(error)}") from error
        first = (str(error).strip().splitlines() or [""])[0]
        why = f"{unreachable}, and there is no local copy" if unreachable else f"{type(error).__name__}: {first}"
        what = f" ({first})" if unreachable else ""
        raise ValueError(
            f"task={suite.name} needs data from the hub for {names}{what}: {why}; task=offline offers real benchmarks "
            "that need no network"
        ) from error


def questions(suite: HarnessSuite, seed: int) -> Iterator[str]:
    """Yield the text of every test item of a suite's tasks, without few-shot examples."""
    for task in load_tasks(suite, seed).tasks.values():
        for doc in task.eval_docs:
            with naming_tasks():
                text = task.doc_to_text(doc)
            if isinstance(text, str):
                yield text


def rows_of(
    suite: HarnessSuite, loaded: HarnessTasks, reported: Mapping[str, Collection[str]] | None = None
) -> Iterator[Row]:
    """Yield the rows of the score table, in the suite's order.

    ``reported`` holds the reported metrics by task or group, once they are known: definitions list some that are never
    reported, or reported under another name.
    """
    reported = reported or {}
    left = dict(loaded.tasks)
    for entry in suite.entries():
        group = loaded.groups.get(entry.name)
        if group is not None and group.has_aggregation:
            leaves = [task.task_name for task in group.get_all_tasks()]
            yield _group_row(entry, group, [loaded.tasks[leaf] for leaf in leaves], reported)
        elif group is None and entry.name in left:
            yield _row(entry, left[entry.name], reported)
            leaves = [entry.name]
        else:
            leaves = [task.task_name for task in group.get_all_tasks()] if group else []
            yield from (_row(TaskEntry(name, name), loaded.tasks[name], reported) for name in leaves)
        for name in leaves:
            left.pop(name, None)
    # A tag names several tasks; lm-eval replaces it by its members.
    yield from (_row(TaskEntry(name, name), task, reported) for name, task in left.items())


def _row(entry: TaskEntry, task: Task, reported: Mapping[str, Collection[str]]) -> Row:
    metric = entry.metric or _main_metric(list(task.aggregation()), task, reported.get(entry.name))
    return Row(entry.name, entry.task, entry.kind or kind_of(task), metric, (entry.name,))


def _group_row(entry: TaskEntry, group: Group, tasks: Sequence[Task], reported: Mapping[str, Collection[str]]) -> Row:
    listed = [about.metric for about in group.aggregate_metric_list]
    leaves = tuple(task.task_name for task in tasks)
    told = [reported[name] for name in (entry.name, *leaves) if name in reported]
    there = set(told[0]).intersection(*told[1:]) if told else None
    metric = entry.metric or _main_metric(listed, tasks[0], there)
    return Row(entry.name, entry.task, entry.kind or kind_of(tasks[0]), metric, leaves)


def _main_metric(known: Sequence[str], task: Task, reported: Collection[str] | None) -> str:
    there = [metric for metric in known if reported is None or metric in reported]
    return main_metric(there or known, task.higher_is_better(), task.OUTPUT_TYPE in _BY_LIKELIHOOD)


def kind_of(task: Task) -> str:
    """Return the kind of a task, from its output type."""
    return _KINDS[str(task.OUTPUT_TYPE)]


def options_of(task: Task, doc: Any) -> list[str]:
    """Return the options of a multiple-choice item, each as its definition writes it."""
    return [str(option) for option in task.doc_to_choice(doc)]
