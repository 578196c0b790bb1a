"""Changes of the scores of every variant, by task and in the mean, with their verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.analysis.effects import KIND_NAMES
from pipeline.analysis.score_changes import with_pooled
from pipeline.analysis.score_means import MEAN, shared_tasks, task_scores, with_means
from pipeline.tables.read import Tables
from pipeline.tables.variants import Variant

PERPLEXITY = "perplexity"  # the kind whose values are not fractions


@dataclass(frozen=True)
class Change:
    """Scores of the dense model and of one variant, in percent, with the interval of their difference in points.

    ``verdict`` is that of `pipeline.evaluate.comparison`.
    """

    dense: float
    pruned: float
    low: float
    high: float
    verdict: str

    @property
    def difference(self) -> float:
        """Difference in percentage points, pruned minus dense."""
        return self.pruned - self.dense


Changes = dict[tuple[str, str], dict[Variant, Change]]


def kinds_of(scores: pd.DataFrame) -> list[str]:
    """Return the kinds of tasks that have scores, generation and multiple choice first, without perplexity."""
    present = [] if scores.empty else sorted(set(scores["kind"]) - {PERPLEXITY})
    return [*(kind for kind in KIND_NAMES if kind in present), *(kind for kind in present if kind not in KIND_NAMES)]


def percent_scores(tables: Tables) -> pd.DataFrame:
    """Return the scores of every task and their means, in percent: the columns of `score_means.with_means`.

    A mean is over the tasks that every variant of this model has; the other tasks have rows but are in no mean.

    Raises:
        MissingData: if there are no scores.
    """
    scores = task_scores(tables, kinds_of(tables.scores))
    shared, others = shared_tasks(scores)
    parts = [with_means(shared)] if not shared.empty else []
    if not others.empty:
        alone = with_means(others)
        parts.append(alone[alone["series"] != MEAN])
    return pd.concat(parts, ignore_index=True)


def changes(tables: Tables) -> Changes:
    """Return the change of every variant against dense, by kind and series (a task, or "mean" over shared tasks)."""
    compared = with_pooled(tables.comparisons)
    found: Changes = {}
    for row in compared.itertuples():
        dense, pruned, low, high = (100 * float(value) for value in (row.dense, row.pruned, row.low, row.high))
        change = Change(dense, pruned, low, high, str(row.verdict))
        found.setdefault((row.kind, row.task), {})[Variant(row.pruner, row.sparsity, row.options)] = change
    return found


def mean_changes(tables: Tables) -> dict[str, dict[Variant, Change]]:
    """Return the changes of the means by kind; empty if no model was compared with the dense one."""
    found = changes(tables)
    return {kind: found[kind, MEAN] for kind in kinds_of(tables.comparisons) if (kind, MEAN) in found}
