"""Evaluation of a task suite on the in-memory model through the lm-eval harness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lm_eval.evaluator
import pandas as pd
import torch
from lm_eval.evaluator_utils import get_sample_size

from pipeline.evaluate.bars import bars_on_terminals
from pipeline.evaluate.batch_size import found_size
from pipeline.evaluate.gen_kwargs import draws
from pipeline.evaluate.guesses import guess_scores
from pipeline.evaluate.harness import UNSCORED, HarnessTasks, Row, load_tasks, options_of, rows_of
from pipeline.evaluate.harness_samples import DIVIDED, Sample, described, likelihoods, main_key, samples_of
from pipeline.evaluate.harness_suite import HarnessSuite
from pipeline.evaluate.language_model import InMemoryLM
from pipeline.evaluate.lm_eval_log import lines_of_log
from pipeline.evaluate.metric_errors import in_this_process
from pipeline.evaluate.metrics import is_share, more_is_better
from pipeline.evaluate.results import SCORE_COLUMNS, Results, items_of, rows_digest
from pipeline.evaluate.rounding import is_close
from pipeline.evaluate.several import pass_scores
from pipeline.evaluate.suite import MULTIPLE_CHOICE, PERPLEXITY
from pipeline.evaluate.task_errors import naming_tasks

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Number of resamples for the standard error of metrics that are not plain means.
_BOOTSTRAP = 1000
# Metrics for which guessing among the k options of an item scores 1/k on average.
_GUESSED = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")


def evaluate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: HarnessSuite, seed: int) -> Results:
    """Evaluate the model on every task of the suite: lm-eval's prompts, filters and metrics, our log-likelihoods.

    Drawn tokens follow from the seed. Where the suite's batch size is ``auto``, it is found on this model.
    """
    loaded, harness = load_tasks(suite, seed), InMemoryLM(model, tokenizer, rows_of_pass(model, tokenizer, suite, seed))
    # The harness's simple_evaluate would also probe the machine and its git checkout, which takes seconds a job.
    devices = [harness.device] if harness.device.type == "cuda" else []
    with naming_tasks(), in_this_process(), bars_on_terminals(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        found = lm_eval.evaluator.evaluate(
            lm=harness,
            task_dict=loaded.as_harness(),
            limit=suite.limit,
            bootstrap_iters=_BOOTSTRAP,
            log_samples=True,
            confirm_run_unsafe_code=suite.allow_code_execution,
            **_prompting(suite),
        )
    log = lines_of_log(found, harness)
    if suite.predict_only:
        unscored = (replace(row, metric=UNSCORED) for row in rows_of(suite, loaded))
        samples = described(unscored, found, loaded, harness, suite.chat_template)
        return Results(pd.DataFrame(columns=SCORE_COLUMNS), items_of([]), samples, log)
    metrics = {name: [key.partition(",")[0] for key in values] for name, values in found["results"].items()}
    rows = list(rows_of(suite, loaded, metrics))
    left_out = suite.left_out()
    scores = [
        score for row in rows for score in _scores(row, found, loaded, left_out.get(row.task, 0), harness.rounding)
    ]
    if suite.samples > 1:
        beams = not draws(suite.generation)
        scores += [score for row in rows for score in pass_scores(row, found, loaded, scores, beams)]
    samples = described(rows, found, loaded, harness, suite.chat_template)
    return Results(pd.DataFrame(scores, columns=SCORE_COLUMNS), items_of(samples), samples, log)


def _prompting(suite: HarnessSuite) -> dict[str, Any]:
    return {
        "system_instruction": suite.system_instruction,
        "apply_chat_template": suite.chat_template,
        "fewshot_as_multiturn": suite.multiturn,
    }


def encode_requests(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: HarnessSuite, seed: int) -> int:
    """Tokenise all requests of the suite; return how many tokens the longest needs.

    ``pipeline.model.tokens`` keeps the token ids. Of the model, only its configuration is read.
    """
    harness, longest = InMemoryLM(model, tokenizer, 1), 1
    for request in _requests(harness, suite, seed):
        harness.encode(*request.args)
        longest = max(longest, harness.length(*request.args))
    return longest


def rows_of_pass(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: HarnessSuite, seed: int) -> int:
    """Return the batch size of a suite; one that is ``auto`` is found on the model, with the longest request."""
    if isinstance(suite.batch_size, int):
        return suite.batch_size
    harness = InMemoryLM(model, tokenizer, 1)
    return found_size(model, max((harness.length(*each.args) for each in _requests(harness, suite, seed)), default=1))


def _requests(harness: InMemoryLM, suite: HarnessSuite, seed: int) -> Iterator[Any]:
    for task in load_tasks(suite, seed).tasks.values():
        build_requests(task, suite, get_sample_size(task, suite.limit), harness)
        yield from task.instances


def build_requests(task: Task, suite: HarnessSuite, limit: int | None, harness: InMemoryLM) -> None:
    """Build a task's requests for ``limit`` items, as lm-eval's evaluator does."""
    chat = {"chat_template": harness.apply_chat_template, "tokenizer_name": harness.tokenizer_name}
    with naming_tasks(), bars_on_terminals():
        task.build_all_requests(
            limit=limit,
            rank=0,
            world_size=1,
            **_prompting(suite),
            **(chat if suite.chat_template else {}),
        )


def _scores(row: Row, found: Any, loaded: HarnessTasks, left_out: int, rounding: float) -> Iterator[dict[str, Any]]:
    """Yield one row per metric of a task or group. Raises ValueError if the main metric was not reported."""
    values: Mapping[str, Any] = found["results"][row.name]
    main, told = main_key(row, values), loaded.tasks[row.leaves[0]].higher_is_better()
    data = rows_digest([_rows_asked(leaf, found, loaded) for leaf in row.leaves])
    for key, value in values.items():
        metric, _, reading = key.partition(",")
        if not reading or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        # A single item has no standard error; the harness then reports a text instead of a number.
        stderr = values.get(f"{metric}_stderr,{reading}")
        several = sum(other.startswith(f"{metric},") for other in values) > 1
        yield {
            "task": row.task,
            "kind": row.kind,
            "metric": f"{metric} ({reading})" if several and key != main else metric,
            "main": key == main,
            "value": float(value),
            "stderr": float(stderr) if isinstance(stderr, int | float) else float("nan"),
            "n": sum(int(found["n-samples"][leaf]["effective"]) for leaf in row.leaves),
            "shots": max(int(found["n-shot"].get(leaf) or 0) for leaf in row.leaves),
            "higher_is_better": more_is_better(metric, told.get(metric, True)),
            "averaged": key == main
            and row.kind != PERPLEXITY
            and is_share(metric, told.get(metric, True), [value, *_item_scores(row, metric, found)]),
            "chance": _chance(row, metric, found, loaded),
            "left_out": left_out,
            "close": _close(row, metric, found, loaded, rounding),
            "data": data,
        }


def _chance(row: Row, metric: str, found: Any, loaded: HarnessTasks) -> float:
    """Compute the score of guessing one option, the mean over items; 0 without options to guess."""
    if row.kind != MULTIPLE_CHOICE or metric not in _GUESSED:
        return 0.0
    shares = [_guess(loaded.tasks[leaf], sample, metric) for leaf in row.leaves for sample in samples_of(leaf, found)]
    return sum(shares) / len(shares)


def _close(row: Row, metric: str, found: Any, loaded: HarnessTasks, rounding: float) -> int:
    """Count the items whose chosen option may be another one by rounding; 0 where no option is chosen."""
    if row.kind != MULTIPLE_CHOICE or metric not in DIVIDED:
        return 0
    count = 0
    for leaf in row.leaves:
        for sample in samples_of(leaf, found):
            options = options_of(loaded.tasks[leaf], sample["doc"])
            # Equal options are no decision.
            values = dict(zip(options, likelihoods(sample, options), strict=False))
            lengths = [max(1, DIVIDED[metric](option)) for option in values]
            count += is_close(list(values.values()), lengths, rounding)
    return count


def _guess(task: Task, sample: Sample, metric: str) -> float:
    """Return the mean score of guessing an option of an item, each distinct option being equally likely."""
    options = options_of(task, sample["doc"])
    if scores := guess_scores(task, sample["doc"], metric, len(options)):
        return sum(scores) / len(scores)
    right = sample["target"]
    several = (
        {options[place] for place in right if isinstance(place, int) and place < len(options)}
        if isinstance(right, list)
        else set()
    )
    return max(len(several), 1) / len(set(options))


def _rows_asked(leaf: str, found: Any, loaded: HarnessTasks) -> list[Any]:
    """Return the rows of a task that were asked, and the rows that few-shot examples were drawn from, if any."""
    task = loaded.tasks[leaf]
    examples = list(task.fewshot_docs() or ()) if int(found["n-shot"].get(leaf) or 0) else []
    return [[sample["doc"] for sample in samples_of(leaf, found)], examples]


def _item_scores(row: Row, metric: str, found: Any) -> list[float]:
    scores = (sample.get(metric) for leaf in row.leaves for sample in found["samples"][leaf])
    return [score for score in scores if isinstance(score, int | float)]
