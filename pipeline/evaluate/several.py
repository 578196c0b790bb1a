"""pass@k of several answers to each item: the chance that one of k drawn texts, or of the k best beams, is right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluate.code.code_eval import pass_at_k
from pipeline.evaluate.harness_samples import main_key

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from pipeline.evaluate.harness import HarnessTasks, Row

# What the names of these metrics begin with, and lm-eval's word for tasks that generate.
METRIC, WRITING = "pass@", "generate_until"


def tries(samples: int) -> list[int]:
    """Return the numbers of tries k to score: the powers of two up to the number of samples, and that number."""
    return sorted({*(2**power for power in range(samples.bit_length())), samples})


def drawn_pass(right: Sequence[Sequence[bool]], k: int) -> list[float]:
    """Estimate pass@k of each item from n >= k drawn answers, without bias: Chen et al. (2021), equation 1.

    ``right`` says of each item's answers which are right.
    """
    return [pass_at_k(len(own), sum(own), k) for own in right]


def beam_pass(right: Sequence[Sequence[bool]], k: int) -> list[float]:
    """Return for each item whether one of its k best beams is right. Answers are ranked, not drawn: best first."""
    return [float(any(own[:k])) for own in right]


def right_answers(task: Task, metric: str, reading: str, found: Sequence[Mapping[str, Any]]) -> list[list[bool]]:
    """Return for each item which of its answers score 1 when each is read and scored alone, as lm-eval does.

    ``reading`` is the name of the task's filter, ``found`` are its samples.
    """
    ensemble = next(each for each in task._filters if each.name == reading)
    results = []
    for sample in found:
        own = []
        for text in sample["resps"][0]:
            read: Any = [[text]]
            for each in ensemble.filters:
                read = each().apply(read, [sample["doc"]])
            (answer,) = read
            own.append(task.process_results(sample["doc"], [answer])[metric] >= 1)
        results.append(own)
    return results


def pass_scores(
    row: Row, found: Any, loaded: HarnessTasks, scores: Sequence[Mapping[str, Any]], beams: bool
) -> Iterator[dict[str, Any]]:
    """Yield a row of the score table for each pass@k of a generation task; ``scores`` are the rows there are.

    ``found`` is what lm-eval's ``evaluate`` returns. Tasks that report a pass@k of their own, those with metrics over
    all items at once, and those with a metric of which less is better have none.
    """
    if row.metric.startswith(METRIC) or any(loaded.tasks[leaf].OUTPUT_TYPE != WRITING for leaf in row.leaves):
        return
    main = next(each for each in scores if (each["kind"], each["task"]) == (row.kind, row.task) and each["main"])
    if not main["higher_is_better"]:
        return
    right: list[list[bool]] = []
    for leaf in row.leaves:
        reading = main_key(row, found["results"][leaf]).partition(",")[2]
        samples = [sample for sample in found["samples"][leaf] if sample["filter"] == reading]
        if not all(isinstance(sample.get(row.metric), int | float) for sample in samples):
            return
        right += right_answers(loaded.tasks[leaf], row.metric, reading, samples)
    own = {"main": False, "averaged": False, "higher_is_better": True, "chance": 0.0, "close": 0}
    for metric, value, error in pass_rows(right, beams):
        yield {**main, **own, "metric": metric, "value": value, "stderr": error}


def pass_rows(right: Sequence[Sequence[bool]], beams: bool) -> Iterator[tuple[str, float, float]]:
    """Yield pass@k over items for each k of `tries`: metric, mean and its standard error."""
    for k in tries(len(right[0])):
        values = np.array((beam_pass if beams else drawn_pass)(right, k))
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
        yield f"{METRIC}{k}", float(values.mean()), error
