"""What became of scores, as figures and the report show it: comparisons of tasks, and of means over shared tasks."""

from __future__ import annotations

import pandas as pd

from pipeline.comparison import HIGHER, LOWER, MEAN, NO_CHANGE, pool

CHANGED = (LOWER, HIGHER)
DECIDED = (*CHANGED, NO_CHANGE)
WHO = ["pruner", "sparsity"]


def with_pooled(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Rows of the comparisons table, and for each variant and kind a row of the task "mean".

    A mean is over the tasks that every variant with tasks of this kind has, so that means compare; a kind without
    such a task has none.

    Args:
        comparisons: pruner, sparsity and the columns of `pipeline.comparison`, without means.
    """
    if comparisons.empty:
        return comparisons
    variants = comparisons.groupby("kind")[WHO].apply(lambda rows: len(rows.drop_duplicates()))
    counts = comparisons.groupby(["kind", "task"]).size()
    shared = [key for key, count in counts.items() if count == variants[key[0]]]
    rows = comparisons[pd.MultiIndex.from_frame(comparisons[["kind", "task"]]).isin(shared)]
    means = [
        pool(own).assign(pruner=pruner, sparsity=sparsity) for (pruner, sparsity), own in rows.groupby(WHO, sort=False)
    ]
    return pd.concat([comparisons, *means], ignore_index=True)


def means_of(compared: pd.DataFrame) -> pd.DataFrame:
    """The rows of `with_pooled` that are means."""
    return compared[compared["task"] == MEAN] if not compared.empty else compared
