"""Mean of measures over prompts, in which every prompt counts once, however long its continuation is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

PROMPT = "prompt"


def mean_over_prompts(frame: pd.DataFrame, columns: Sequence[str], by: Sequence[str] = ()) -> pd.DataFrame:
    """Compute the mean over prompts of each prompt's mean over its rows (steps, layers, ...), for each value of ``by``.

    ``frame`` has one row per position, with a column ``prompt``. Returns the columns ``by`` and ``columns`` (float64),
    one row for each combination of ``by`` in ``frame``, sorted; a single row without ``by``, none if ``frame`` is
    empty. Raises ValueError, naming the measure and its place, if a value is not finite: a mean would skip it.
    """
    by, columns = list(by), list(columns)
    values = frame[columns].astype(float)
    if (wrong := ~np.isfinite(values.to_numpy())).any():
        row, column = (int(places[0]) for places in wrong.nonzero())
        place = ", ".join(f"{name} {frame[name].iloc[row]}" for name in (*by, PROMPT))
        raise ValueError(
            f"{columns[column]} is {values.iat[row, column]} at {place}, so its mean is undefined; measure again with "
            "capture.dtype=float64, or leave that prompt out"
        )
    keys = [frame[name] for name in (*by, PROMPT)]
    prompts = values.groupby(keys, sort=True, dropna=False).mean().reset_index()
    if not by:
        return prompts[columns].mean().to_frame().T if len(prompts) else prompts[columns]
    return prompts.groupby(by, sort=True, dropna=False)[columns].mean().reset_index()
