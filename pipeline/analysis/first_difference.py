"""First step at which the tokens of the dense and the pruned model differ."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.tables.variants import VARIANT

COLUMN = "first_difference"


def first_differences(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Compute, per variant, the median over prompts of the first step at which the tokens differ.

    Columns pruner, sparsity, options, first_difference (a generation step). Infinite where more than half of the
    prompts never differ; variants without trajectories have no row.
    """
    if trajectories.empty:
        kinds = {**dict.fromkeys(VARIANT, str), COLUMN: float}
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
    differs = trajectories["dense_token"] != trajectories["pruned_token"]
    steps = trajectories["step"].where(differs, np.inf)
    first = steps.groupby([trajectories[name] for name in (*VARIANT, "prompt")]).min()
    # The lower median is an observed step, and stays finite as long as half of the prompts differ.
    median = first.groupby(level=VARIANT).quantile(0.5, interpolation="lower")
    return median.rename(COLUMN).reset_index()
