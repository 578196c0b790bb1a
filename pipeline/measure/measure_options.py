"""Measure the options protocol on two models in memory: the interface for Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from pipeline.capture.options import decision_states, probe_questions, task_questions
from pipeline.common.quiet import quiet_harness
from pipeline.config.by_name import settings
from pipeline.config.schema import temperatures_problem
from pipeline.evaluate import ask
from pipeline.evaluate.interface import suites
from pipeline.measure import options as of_states
from pipeline.measure.interface import Prompts, probes_given, pruned_beside
from pipeline.model.borrowed import borrowed
from pipeline.model.decoder import Decoder
from pipeline.model.proof import head_of
from pipeline.prune.interface import Pruned, name_of
from pipeline.prune.vet import vet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class OptionTables(NamedTuple):
    """The tables of the options protocol: sets of tokens, and single tokens.

    See `pipeline.measure.options.measure_options` for their columns.
    """

    sets: pd.DataFrame
    tokens: pd.DataFrame


def measure_options(
    dense: PreTrainedModel,
    pruned: Pruned | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts | Path | None = None,
    tasks: str | Sequence[str] = (),
    *,
    items: int = 4,
    temperatures: Sequence[float] = (1.0,),
    allow_code_execution: bool = False,
    seed: int = 0,
    **options: Any,
) -> OptionTables:
    """Measure a dense and a pruned model where a multiple-choice question is decided.

    The numbers are those of the same job on the command line for models in ``capture.dtype``. ::

        tables = measure_options(model, pruned, tokenizer, tasks=["plurals"], items=8)
        tables.sets.groupby("set")[["kl", "flip"]].mean()

    Args:
        dense: the model before pruning.
        pruned: the pruned one.
        tokenizer: the tokenizer of both.
        prompts: as in `measure`; those with ``options`` are asked, by default the built-in ones.
        tasks: as in `evaluate`; of each of their multiple-choice tasks, the first questions are asked, too.
        items: how many questions of each task.
        temperatures: softmax temperatures.
        allow_code_execution: whether task files of your own may run their Python functions.
        seed: where random numbers start, within this call alone.
        options: further keys of the suites, as in `evaluate`.

    Returns:
        ``sets``, a row a question, set of tokens and temperature, and ``tokens``, a row an option or likely token.

    Raises:
        ValueError: for values of a wrong type, unknown tasks, models that do not belong together or write no text, and
            prompts and tasks without a question whose options differ at one step.
    """
    capture = settings("capture", option_items=items)
    wanted = settings("measure", temperatures=temperatures)
    if problem := temperatures_problem(wanted.temperatures):
        raise ValueError(problem)
    asked = suites(tasks, options, allow_code_execution, seed) if tasks else []
    probes, model = probes_given(prompts), pruned_beside(dense, pruned)
    with borrowed([dense, model], tokenizer, seed), quiet_harness():
        for each in (dense, model):
            vet(each, name_of(each))
        questions = probe_questions(probes, tokenizer)
        for suite in asked:
            ask.check_chat_template(suite, tokenizer, name_of(dense))
            questions += task_questions(suite, capture.option_items, seed, dense, tokenizer)
        if not questions:
            raise ValueError("no prompt and no task has options that differ at one step; give prompts with options")
        before, after = (decision_states(each, questions) for each in (dense, model))
        head = head_of(Decoder(dense))
        found = of_states.measure_options(questions, before, after, head, wanted.temperatures, tokenizer, seed)
    return OptionTables(*found)
