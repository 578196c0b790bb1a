"""Items that the lm-eval harness has asked, as plain rows: texts for readers, scores, fidelity of the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.evaluate.gold import gold_standings, gold_texts, option_standing
from pipeline.evaluate.guesses import guess_scores
from pipeline.evaluate.harness import UNSCORED, HarnessTasks, Row, options_of
from pipeline.evaluate.metrics import more_is_better
from pipeline.evaluate.suite import GENERATIVE, MULTIPLE_CHOICE
from pipeline.evaluate.written import Written, repetition

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from pipeline.evaluate.language_model import InMemoryLM

Sample = Mapping[str, Any]
# What the metrics that choose an option divide its log-likelihood by.
DIVIDED: Mapping[str, Callable[[str], int]] = {
    "acc": lambda option: 1,
    "acc_norm": len,
    "acc_bytes": lambda option: len(option.encode()),
}
# A metric that chooses by likelihoods which are not those after the prompt alone.
_OTHERWISE = "acc_mutual_info"


def described(
    rows: Iterable[Row], found: Any, loaded: HarnessTasks, harness: InMemoryLM, chat: bool
) -> list[dict[str, Any]]:
    """Return every item of some rows of the score table, with the `FIDELITY_COLUMNS` that apply to it.

    ``found`` is what lm-eval's ``evaluate`` returns, ``chat`` whether prompts are in the chat format. The gold tokens
    of generated answers take passes of their own through the harness's model; a right answer has no token that differs.
    """
    samples: list[dict[str, Any]] = []
    asked: list[tuple[Written, list[list[int]]]] = []
    generated: list[dict[str, Any]] = []
    for row in rows:
        for item, (leaf, sample) in enumerate(_of_row(row, found)):
            task = loaded.tasks[leaf]
            samples.append(_described(row, item, sample, task))
            if text := harness.written.get((leaf, sample["doc_id"]), [None])[0]:
                samples[-1] |= _of_text(text)
                if not _is_right(samples[-1]["score"], row.metric, task):
                    generated.append(samples[-1])
                    asked.append((text, _gold_tokens(text, sample, task, harness, chat)))
    for sample, standing in zip(generated, gold_standings(harness, asked), strict=True):
        if standing is not None:
            sample |= {"gold_rank": standing.rank, "gold_p": standing.p}
    return samples


def samples_of(leaf: str, found: Any) -> Iterator[Sample]:
    """Iterate over the samples of a task under its first filter."""
    listed: Sequence[Sample] = found["samples"][leaf]
    return (sample for sample in listed if sample["filter"] == listed[0]["filter"])


def _of_row(row: Row, found: Any) -> Iterator[tuple[str, Sample]]:
    """Yield the tasks of a row with their samples, under the filter that the main metric reads."""
    for leaf in row.leaves:
        read = samples_of(leaf, found)
        if row.metric != UNSCORED:
            reading = main_key(row, found["results"][leaf]).partition(",")[2]
            read = (sample for sample in found["samples"][leaf] if sample["filter"] == reading)
        yield from ((leaf, sample) for sample in read)


def main_key(row: Row, values: Mapping[str, Any]) -> str:
    """Return the key of a row's main metric among the values that lm-eval reports. Raises ValueError if it is not."""
    for key in values:
        if key.partition(",")[0] == row.metric:
            return key
    reported = ", ".join(key for key in values if "," in key and "_stderr," not in key)
    raise ValueError(f"task {row.name} reports no {row.metric}; it has {reported}")


def likelihoods(sample: Sample, options: Sequence[str]) -> list[float]:
    """Return the log-likelihoods of an item's options after its prompt, in nats."""
    # Requests for the options without the prompt may follow those for the options after the prompt.
    return [response[0] for response in sample["filtered_resps"]][: len(options)]


def _described(row: Row, item: int, sample: Sample, task: Task) -> dict[str, Any]:
    score = sample.get(row.metric)
    about: dict[str, Any] = {
        "task": row.task,
        "kind": row.kind,
        "item": item,
        "prompt": sample["arguments"][0][0] if sample["arguments"] else "",
    }
    if row.kind == MULTIPLE_CHOICE:
        about |= _of_options(row.metric, sample, task)
    else:
        about |= {"completion": sample["resps"][0][0]}
        if row.kind == GENERATIVE and (answer := sample["filtered_resps"][0]) != about["completion"]:
            about |= {"answer": answer}
    # Metrics over all items at once, such as correlations, have no score per item.
    return about | {"gold": sample["target"], "score": float(score) if isinstance(score, int | float) else None}


def _of_options(metric: str, sample: Sample, task: Task) -> dict[str, Any]:
    """Return the options of an item with their likelihoods, which one the metric takes, and where the gold stands."""
    given = options_of(task, sample["doc"])
    values = likelihoods(sample, given)
    options = [arguments[1] for arguments in sample["arguments"]][: len(given)]
    if len(set(options)) < len(set(given)):
        options = given  # the options stand in the prompts, and the continuation is the same for all
    about = {"completion": options[values.index(max(values))], "options": options, "log_likelihoods": values}
    if metric != _OTHERWISE:
        divided = DIVIDED.get(metric, DIVIDED["acc"])
        scores = [value / max(1, divided(option)) for value, option in zip(values, given, strict=True)]
        about["choice"] = scores.index(max(scores))
    if gold := _gold_options(sample, task, given, metric):
        standing = option_standing(values, gold)
        about |= {"gold_rank": standing.rank, "gold_p": standing.p}
    return about


def _gold_options(sample: Sample, task: Task, options: Sequence[str], metric: str) -> list[int]:
    """Return the numbers of the right options, as the task's metric reads them; empty if they are not known."""
    if scores := guess_scores(task, sample["doc"], metric, len(options)):
        return [place for place, score in enumerate(scores) if score >= 1]
    target = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
    found = [options.index(each) if each in options else each for each in _listed(target)]
    return [each for each in found if isinstance(each, int) and 0 <= each < len(options)]


def _listed(target: Any) -> list[Any]:
    return list(target) if isinstance(target, list | tuple) else [target]


def _of_text(text: Written) -> dict[str, Any]:
    """Return length, truncation and repetition of a generated text; no repetition where it has too few tokens."""
    repeated = repetition(text.tokens)
    return {
        "tokens": len(text.tokens),
        "truncated": text.truncated,
        "repetition": None if math.isnan(repeated) else repeated,
    }


def _is_right(score: float | None, metric: str, task: Task) -> bool:
    """Return whether an item has the best score of a metric whose scores are shares."""
    return score is not None and score >= 1 and more_is_better(metric, task.higher_is_better().get(metric, True))


def _gold_tokens(text: Written, sample: Sample, task: Task, harness: InMemoryLM, chat: bool) -> list[list[int]]:
    """Return the token ids of each gold answer after the prompt.

    There are none where the gold is no text, but tests that a program has to pass.
    """
    if getattr(task, "UNSAFE_CODE", False):
        return []
    context = sample["arguments"][0][0]
    delimiter = _delimiter(task, chat)
    return [harness.after(context, text.prompt, f"{delimiter}{gold}") for gold in gold_texts(sample["target"])]


def _delimiter(task: Task, chat: bool) -> str:
    """Return what stands between prompt and answer, as lm-eval's multiple choice has it."""
    prefix = task.config.gen_prefix
    own = not chat or (prefix and not prefix[-1].isspace())
    return str(task.config.target_delimiter) if own else ""
