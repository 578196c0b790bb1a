"""pass@k of generated programs, each run in the sandbox: replaces the metric ``code_eval``, which uses no sandbox.

lm-eval's definitions of HumanEval and MBPP fetch that metric from the hub when they are loaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from math import comb
from pathlib import Path
from typing import Any

from pipeline.evaluate.code.sandbox import Outcome, run_all

METRIC = "code_eval"
# Source text by which a metric's module runs programs itself, in whatever way.
_RUNS_BARE = re.compile(r"(?<![\w.])(?:exec|eval)\(|\bsubprocess\b|\bos\.system\b")
# Outcomes by program: a process repeats a program only where nothing else has changed.
_OUTCOMES: dict[str, Outcome] = {}


class CodeEval:
    """Replaces the metric ``evaluate.load("code_eval")``, as far as lm-eval uses it."""

    name = METRIC

    def compute(
        self,
        references: Sequence[str],
        predictions: Sequence[Sequence[str]],
        k: Sequence[int] = (1, 10, 100),
        **_how: object,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """Compute pass@k over problems, and every candidate's result by problem.

        ``references`` are tests, one text per problem; ``predictions`` are the candidates of each problem, each run
        with the tests below it. A ``k`` is left out where a problem has fewer candidates. Further keywords of the
        replaced metric (``timeout``, ``num_workers``) are ignored: the sandbox has its own limits.

        Raises:
            ValueError: programs cannot be run safely here, or the two lists have different lengths.
        """
        if len(references) != len(predictions):
            raise ValueError(
                f"{len(references)} tests but {len(predictions)} lists of candidates; give one list per test"
            )
        programs = [
            [f"{candidate}\n{test}" for candidate in candidates]
            for test, candidates in zip(references, predictions, strict=True)
        ]
        new = [program for program in dict.fromkeys(chain.from_iterable(programs)) if program not in _OUTCOMES]
        _OUTCOMES.update(zip(new, run_all(new), strict=True))
        results = defaultdict(list)
        for task, candidates in enumerate(programs):
            for candidate, program in enumerate(candidates):
                outcome = _OUTCOMES[program]
                told = {"task_id": task, "passed": outcome.passed, "result": outcome.reason, "completion_id": candidate}
                results[task].append((candidate, told))
        counts = [(len(c), sum(_OUTCOMES[program].passed for program in c)) for c in programs]
        scores = {
            f"pass@{tries}": sum(pass_at_k(total, passed, tries) for total, passed in counts) / len(counts)
            for tries in k
            if counts and all(total >= tries for total, _ in counts)
        }
        return scores, dict(results)


def pass_at_k(total: int, passed: int, k: int) -> float:
    """Estimate without bias the chance that one of ``k`` candidates passes, given that ``passed`` of ``total`` do."""
    return 1.0 - comb(total - passed, k) / comb(total, k)


@contextmanager
def sandboxed_code_eval() -> Iterator[None]:
    """Let ``evaluate.load("code_eval")`` return a ``CodeEval`` within the block, which works afterwards as well."""
    import evaluate

    load = evaluate.load

    def load_sandboxed(path: str, *args: Any, **kwargs: Any) -> Any:
        return CodeEval() if path == METRIC else load(path, *args, **kwargs)

    evaluate.load = load_sandboxed
    try:
        yield
    finally:
        evaluate.load = load


def needs_code_execution(definition: str | Mapping[str, Any], index: Mapping[str, Any] | None = None) -> bool:
    """Return whether an lm-eval task, or one task of a group or tag, runs what the model writes; resolves no function.

    ``definition`` is a name or an inline configuration, ``index`` the ``task_index`` of a ``TaskManager`` (that of
    lm-eval's own tasks if None, which takes seconds). Checks the definition's own flag (``unsafe_code``) and whether
    its metrics and filters run programs, by ``code_eval`` or in their modules, since some do without the flag.
    """
    return any(_runs_code(config) for config in configurations(definition, _index(index), set()))


def bypasses_sandbox(definition: str | Mapping[str, Any], index: Mapping[str, Any] | None = None) -> bool:
    """Return whether such a task runs what the model writes by itself, not through the metric ``code_eval``."""
    found = configurations(definition, _index(index), set())
    return any(_runs_code(config) and not _through_code_eval(config) for config in found)


def _index(index: Mapping[str, Any] | None) -> Mapping[str, Any]:
    from pipeline.evaluate.built_in import built_in_tasks

    return built_in_tasks().task_index if index is None else index


def configurations(
    definition: str | Mapping[str, Any], index: Mapping[str, Any], seen: set[str]
) -> Iterator[Mapping[str, Any]]:
    """Yield the raw configurations of the task, or of all tasks of the group or tag."""
    if isinstance(definition, str):
        if definition in seen:
            return
        seen.add(definition)
        entry = index.get(definition)
        if entry is not None and entry.cfg:
            yield from configurations(entry.cfg, index, seen)
        # A tag has no configuration, but its tasks do.
        yield from (other.cfg for other in index.values() if other.cfg and definition in other.tags)
        return
    named = definition.get("task")
    if "group" in definition or isinstance(named, list):
        for member in named or []:
            yield from configurations(member, index, seen)
        return
    # A configuration with a registered name overrides that task's definition.
    entry = index.get(str(named)) if isinstance(named, str) else None
    yield {**((entry.cfg or {}) if entry is not None else {}), **definition}


def _runs_code(config: Mapping[str, Any]) -> bool:
    sources = _sources(config)
    return bool(config.get("unsafe_code")) or any(_RUNS_BARE.search(text) or METRIC in text for text in sources)


def _through_code_eval(config: Mapping[str, Any]) -> bool:
    sources = _sources(config)
    return any(METRIC in text for text in sources) and not any(_RUNS_BARE.search(text) for text in sources)


def _sources(config: Mapping[str, Any]) -> list[str]:
    """Return the source texts of modules that score and filter; the metric name ``code_eval`` counts as its text."""
    parts = [config.get(key) for key in ("metric_list", "filter_list", "process_results")]
    names = dict.fromkeys(name for part in parts for name in _strings(part))
    files = {Path(name).with_suffix(".py") for name in names if "/" in name}
    return [path.read_text(encoding="utf-8") for path in sorted(files) if path.is_file()] + [
        name for name in names if name == METRIC
    ]


def _strings(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif callable(part) and hasattr(part, "__code__"):
        yield part.__code__.co_filename
    elif isinstance(part, Mapping):
        yield from (text for value in part.values() for text in _strings(value))
    elif isinstance(part, list | tuple):
        yield from (text for value in part for text in _strings(value))
