"""Mean scores of dense and pruned models, and what became of each kind of task: kept, lowered, or mostly lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from pipeline.figures.base import MissingData
from pipeline.figures.score_means import MEAN, shared_tasks, task_scores, with_means
from pipeline.figures.tables import Tables
from pipeline.figures.variants import DENSE, Variant, variants_of

ERRORS = 2.0  # standard errors of a difference below which a score counts as kept
KIND_NAMES = {"generative": "generation", "multiple_choice": "multiple choice", "retrieval": "retrieval"}


@dataclass(frozen=True)
class Change:
    """A score of the dense model and of one variant, in percent, each with its standard error (may be missing)."""

    dense: float
    dense_error: float
    pruned: float
    pruned_error: float

    @property
    def difference(self) -> float:
        """Percentage points, pruned minus dense."""
        return self.pruned - self.dense

    @property
    def error(self) -> float:
        """The standard error of the difference, as if both scores were of independent items."""
        return math.hypot(self.dense_error, self.pruned_error)

    @property
    def kept(self) -> bool:
        """Whether the score is at most two standard errors below the dense one (not below, where there are none)."""
        return self.difference >= -ERRORS * (self.error if math.isfinite(self.error) else 0.0)

    @property
    def verdict(self) -> str:
        """One word or two for a person."""
        if self.kept:
            return "kept"
        return "mostly lost" if self.pruned < self.dense / 2 else "lowered"


def kind_name(kind: str) -> str:
    """What the text calls a kind of task."""
    return KIND_NAMES.get(kind, kind.replace("_", " "))


def kinds_of(scores: pd.DataFrame) -> list[str]:
    """The kinds of tasks that have scores, generation and multiple choice first."""
    present = [] if scores.empty else sorted(scores["kind"].unique())
    return [*(kind for kind in KIND_NAMES if kind in present), *(kind for kind in present if kind not in KIND_NAMES)]


def percent_scores(tables: Tables) -> pd.DataFrame:
    """Scores of every task and their means, in percent: the columns of `score_means.with_means`.

    A mean is over the tasks that every variant of this model has; the other tasks have rows of their own too.

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


def changes(scores: pd.DataFrame, series: str) -> dict[str, dict[Variant, Change]]:
    """For each kind of task, every variant's change of one series (a task, or "mean") against the dense model.

    Args:
        scores: what `percent_scores` returns.
        series: whose scores.
    """
    found: dict[str, dict[Variant, Change]] = {}
    rows = scores[scores["series"] == series]
    for kind, own in rows.groupby("kind", sort=False):
        values = {
            (row.pruner, row.sparsity): (float(row.score_percent), float(row.stderr_percent))
            for row in own.itertuples()
        }
        dense = next((value for (pruner, _), value in values.items() if pruner == DENSE), None)
        if dense is not None:
            pruned = [variant for variant in variants_of(own) if variant.pruner != DENSE]
            found[str(kind)] = {variant: Change(*dense, *values[variant]) for variant in pruned}
    return {kind: found[kind] for kind in kinds_of(scores) if kind in found}


def mean_changes(tables: Tables) -> dict[str, dict[Variant, Change]]:
    """The changes of the means; empty where there are no scores, or none of the dense model."""
    try:
        return changes(percent_scores(tables), MEAN)
    except MissingData:
        return {}
