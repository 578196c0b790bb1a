"""Error bars of mean scores: over the items of one job, or over the seeds or draws of several."""

from __future__ import annotations

import pandas as pd

from pipeline.analysis.score_means import POINT
from pipeline.tables.replicates import REPLICATE

SEEDS = "seeds"  # the column with the number of seeds or draws that a score is the mean over
_ITEMS, _SPREAD = "standard error over items", "standard deviation over seeds"


def with_seeds(data: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the data with the number of seeds or draws that the scores of each point are means over.

    Args:
        data: columns model, pruner, sparsity, options.
        scores: the same columns and replicate; one row per score.
    """
    counts = scores.groupby(POINT)[REPLICATE].nunique().rename(SEEDS)
    return data.join(counts, on=POINT)


def error_name(data: pd.DataFrame) -> str:
    """Return what the error bars of these points are, in the words of a legend."""
    several = data[SEEDS] > 1
    if several.all():
        return _SPREAD
    return f"{_ITEMS}; over several seeds, standard deviation" if several.any() else _ITEMS
