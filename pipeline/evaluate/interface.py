"""Evaluate a model that is in memory on tasks by their names, and compare two: the interface for Python."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.common.quiet import quiet_harness
from pipeline.config.by_name import built, defaults, settings
from pipeline.config.choices import choices_of, nearest
from pipeline.data.matched.suite import FAMILIES
from pipeline.evaluate import ask, comparison
from pipeline.evaluate.perplexity import HeldOutText, held_out, perplexity_row
from pipeline.evaluate.results import ITEM_COLUMNS, SCORE_COLUMNS, Results
from pipeline.evaluate.suites.names import names as task_names
from pipeline.model.borrowed import borrowed
from pipeline.model.proof import prove
from pipeline.prune.interface import Pruned, name_of
from pipeline.prune.pruned_model import check_writes_text
from pipeline.prune.vet import vet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MATCHED, BY_NAME = "matched", "lm_eval"
# Keys of a suite that are no options of `evaluate`, or arguments of their own.
_FIXED = ("_target_", "name", "allow_code_execution")


def evaluate(
    model: PreTrainedModel | Pruned,
    tokenizer: PreTrainedTokenizerBase,
    tasks: str | Sequence[str] = MATCHED,
    limit: float | None = 32,
    *,
    perplexity: bool | Mapping[str, Any] = False,
    allow_code_execution: bool = False,
    seed: int = 0,
    **options: Any,
) -> Results:
    """Evaluate a model in memory, dense or pruned, by generation and by multiple choice.

    The scores are those of the same tasks on the command line. ::

        results = evaluate(model, tokenizer, tasks=["copying", "plurals"], limit=16)
        results.scores.query("main")[["task", "kind", "value", "stderr"]]
        results.items.groupby(["kind", "task"])["score"].mean()
        evaluate(model, tokenizer, tasks="offline", names=["boolq", "nq_open"], limit=100)
        evaluate(model, tokenizer, tasks=["my_task"], include="my_tasks")

    Args:
        model: a causal language model; also an encoder for ``retrieval`` and ``beir``.
        tokenizer: its tokenizer.
        tasks: names, or one name: a suite in ``conf/task``, a family of the suite ``matched``, or a task, group or tag
            of lm-eval, among them those in the folder ``include``.
        limit: items of each task, or below 1 the fraction of them; None for all.
        perplexity: whether to add the perplexity on held-out text, or options of ``perplexity`` such as
            ``{"tokens": 2048}``.
        allow_code_execution: whether tasks may run what the model writes, in a sandbox, and task files of your own
            their Python functions, without one.
        seed: where random numbers start, within this call alone.
        options: further keys of the suites: ``shots``, ``chat_template``, ``batch_size``, ``names``, ``include``,
            ``metrics``, ``families``, ``kinds``, ``sets``, lm-eval's ``gen_kwargs``, ``system_instruction`` and
            ``predict_only``, and others, each for the suites that have it.

    Returns:
        `Results`, which a notebook shows as its table ``scores``; ``items`` has the score of every item, ``samples``
        every prompt and answer.

    Raises:
        ValueError: for an unknown task or option with the nearest one, values of a wrong type, tasks that cannot be
            loaded, and a model that cannot be asked.
    """
    asked = suites(tasks, {"limit": limit, **options}, allow_code_execution, seed)
    text = _held_out(perplexity)
    if isinstance(model, Pruned):
        model = model.model
    if text is not None or any(suite.writes_text for suite in asked):
        check_writes_text(model, name_of(model))
    return _asked(model, tokenizer, asked, text, seed)


def _asked(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[ask.Suite],
    text: HeldOutText | None,
    seed: int,
) -> Results:
    """Ask a model the tasks of all suites, and compute its perplexity on a text if there is one."""
    name = name_of(model)
    with borrowed([model], tokenizer, seed), quiet_harness():
        for suite in asked:
            ask.check_chat_template(suite, tokenizer, name)
            ask.prepare(suite, seed)
        vet(model, name)
        prove(model)
        found = [ask.evaluate(model, tokenizer, suite, seed) for suite in asked]
        scores = [results.scores for results in found]
        if text is not None:
            scores.append(perplexity_row(model, tokenizer, text))
    return Results(
        pd.concat(scores, ignore_index=True)[SCORE_COLUMNS],
        pd.concat([results.items for results in found], ignore_index=True)[ITEM_COLUMNS],
        [sample for results in found for sample in results.samples],
    )


def compare(dense: Results, pruned: Results) -> pd.DataFrame:
    """Compare a pruned model with the dense one on the items that both were asked.

    The table is that of ``comparisons.parquet``: see `pipeline.evaluate.comparison.compare`. ::

        comparison = compare(evaluate(model, tokenizer), evaluate(pruned, tokenizer))
        comparison[["task", "kind", "dense", "pruned", "difference", "low", "high", "verdict"]]

    Args:
        dense: the results of `evaluate` for the dense model.
        pruned: the results for the pruned model, on the same tasks with the same options.

    Returns:
        One row a task, and one for the mean of each kind: both scores and their difference with 95 % intervals, ``p``,
        the share ``retained`` of the dense score above chance, and the ``verdict``.

    Raises:
        ValueError: if the two were not asked the same items.
    """
    return comparison.compare(dense.items, pruned.items, dense.scores, pruned.scores)


def suites(
    tasks: str | Sequence[str], options: Mapping[str, Any], allow_code_execution: bool, seed: int
) -> list[ask.Suite]:
    """Return the suites that ask tasks of these names. Raises ValueError as `evaluate` does."""
    given = [tasks] if isinstance(tasks, str) else list(tasks)
    if not given or (twice := {name for name in given if given.count(name) > 1}):
        raise ValueError("tasks is empty; give at least one" if not given else f"tasks: {twice} is given twice")
    chosen = [
        (defaults("task", suite, allow_code_execution=allow_code_execution, seed=seed), own)
        for suite, own in _chosen(given, options.get("include"))
    ]
    # What the names of tasks say is not said again.
    free = {key for node, own in chosen for key in node if key not in (*own, *_FIXED)}
    if wrong := [f"{key}: unknown option; {nearest(key, free)}" for key in options if key not in free]:
        raise ValueError("; ".join(wrong))
    found: list[ask.Suite] = [
        built("task", node | {key: value for key, value in options.items() if key in node} | own)
        for node, own in chosen
    ]
    if problems := [problem for suite in found for problem in suite.problems()]:
        raise ValueError("; ".join(dict.fromkeys(problems)))
    return found


def _chosen(names: Sequence[str], include: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each suite that is needed, with the values that choose these tasks of it."""
    suites = choices_of("task")
    own = task_names(Path(os.path.expanduser(include))) if isinstance(include, str | os.PathLike) else {}
    families = [name for name in names if name in FAMILIES and name not in own]
    others = [name for name in names if name in own or name not in (*suites, *families)]
    if unknown := [name for name in others if name not in own and name not in task_names()]:
        raise ValueError("; ".join(_unknown(name, [*own, *FAMILIES, *suites, *task_names()]) for name in unknown))
    yield from ((name, {}) for name in names if name in suites and name not in own)
    if families:
        yield MATCHED, {"families": families}
    if others:
        yield BY_NAME, {"names": others}


def _unknown(name: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"tasks: {name} does not exist; {hint}give suites ({', '.join(choices_of('task'))}), families of matched "
        f"({', '.join(FAMILIES)}), or tasks of lm-eval (`lm-eval ls tasks` lists them)"
    )


def _held_out(chosen: bool | Mapping[str, Any]) -> HeldOutText | None:
    """Return the text for perplexity, or None if it is not asked for. Raises ValueError for wrong options."""
    if not isinstance(chosen, bool | Mapping):
        raise ValueError(f"perplexity={chosen} should be true, false, or options of it")
    return held_out(settings("perplexity", **(chosen if isinstance(chosen, Mapping) else {}))) if chosen else None
