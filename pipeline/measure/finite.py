"""Checks that measures are finite: a mean would skip values that are not, or not be finite itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

# Columns that say where a measure was taken, as far as a table has them.
_PLACE = ("prompt", "step", "layer", "sublayer", "set", "draw", "role", "token", "temperature")


def check_measures(frame: pd.DataFrame, columns: Sequence[str], protocol: str) -> pd.DataFrame:
    """Return a protocol's table if every measure in ``columns`` is finite.

    By definition, all measures of finite nonzero states are finite, and so are the estimates: variances of finite
    changes. Raises ValueError that names the first measure that is not finite, and its place.
    """
    wrong = ~np.isfinite(frame[list(columns)].to_numpy(float))
    if not wrong.any():
        return frame
    row, column = (int(places[0]) for places in wrong.nonzero())
    place = ", ".join(f"{name} {frame[name].iloc[row]}" for name in _PLACE if name in frame)
    raise ValueError(
        f"protocol {protocol}: measure {columns[column]} is {frame[columns[column]].iloc[row]} at {place}, and "
        f"{int(wrong.any(1).sum())} of {len(frame)} rows have such values, so their mean would be meaningless. States "
        "or logits overflow there, or are all zero: give capture.dtype=float64, or another sparsity or model"
    )
