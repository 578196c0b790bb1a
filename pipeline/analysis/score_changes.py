"""Changes of scores, as figures and the report show them: comparisons of tasks, and of means over shared tasks."""

from __future__ import annotations

import pandas as pd

from pipeline.evaluate.comparison import pool
from pipeline.tables.replicates import COUNT
from pipeline.tables.variants import VARIANT


def with_pooled(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons, with a row of the task "mean" added for each variant and kind.

    A mean is over the tasks that all variants with tasks of this kind share, which makes means comparable; a kind
    without a shared task has no mean.

    Args:
        comparisons: as in `pipeline.tables.read.Tables`: without means, one row per variant and task.
    """
    if comparisons.empty:
        return comparisons
    variants = comparisons.groupby("kind")[VARIANT].apply(lambda rows: len(rows.drop_duplicates()))
    counts = comparisons.groupby(["kind", "task"]).size()
    shared = [key for key, count in counts.items() if count == variants[key[0]]]
    rows = comparisons[pd.MultiIndex.from_frame(comparisons[["kind", "task"]]).isin(shared)]
    means = [
        pool(own).assign(**dict(zip(VARIANT, variant, strict=True)), **{COUNT: int(own[COUNT].max())})
        for variant, own in rows.groupby(VARIANT, sort=False)
    ]
    return pd.concat([comparisons, *means], ignore_index=True)
