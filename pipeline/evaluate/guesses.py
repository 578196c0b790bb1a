"""What a task's own scoring gives for each option of an item: its right options, and the score of guessing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval.api.task import Task

# Log-likelihood in nats of an option that is not chosen, beside 0 for the one that is.
_FAR = -1e4


def guess_scores(task: Task, doc: Any, metric: str, count: int) -> list[float]:
    """Return an item's score with each of its ``count`` options as the only likely one.

    That is for tasks that score in a way of their own, such as truthfulqa_mc2, whose items have several right options
    of which lm-eval names only one. Empty for other tasks, and where the scoring takes no such likelihoods.
    """
    score = getattr(task.config, "process_results", None)
    if not callable(score):
        return []
    found = []
    for chosen in range(count):
        likelihoods = [(0.0, True) if place == chosen else (_FAR, False) for place in range(count)]
        try:
            value = score(doc, likelihoods)[metric]
        # The code of a task may raise anything for likelihoods that it does not expect.
        except Exception:
            return []
        if not isinstance(value, int | float):
            return []
        found.append(float(value))
    return found
