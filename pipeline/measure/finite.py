"""Checks that measures are finite: a mean would skip values that are not, or not be finite itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.measure.base import FurtherMeasure

# Columns that say where a measure was taken, as far as a table has them.
_PLACE = ("prompt", "step", "layer", "sublayer", "set", "draw", "role", "token", "temperature")


def check_measures(
    frame: pd.DataFrame, columns: Sequence[str], protocol: str, extra: Sequence[FurtherMeasure] = ()
) -> pd.DataFrame:
    """Return a protocol's table if every measure in ``columns`` is finite, those of ``extra`` among them.

    By definition, all built-in measures of finite nonzero states are finite, and so are the estimates: variances of
    finite changes. Raises ValueError that names the first measure that is not finite, built-in ones before those of
    ``extra``, and its place.
    """
    values = frame[list(columns)].to_numpy(float)
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return frame
    owners = {column: measure for measure in extra for column in measure.columns}
    bad = [at for at in range(len(columns)) if wrong[:, at].any()]
    at = next((at for at in bad if columns[at] not in owners), bad[0])
    column, row = columns[at], int(wrong[:, at].argmax())
    place = ", ".join(f"{name} {frame[name].iloc[row]}" for name in _PLACE if name in frame)
    share = f"{int(wrong.any(1).sum())} of {len(frame)} rows have such values, so their mean would be meaningless"
    if (measure := owners.get(column)) is not None:
        raise ValueError(
            f"protocol {protocol}: measure {measure.name} returned {values[row, at]} for {column} at {place}, and "
            f"{share}. States and built-in measures are finite there, so this is the measure's own value: let "
            f"{type(measure).__name__}.compute return finite numbers, or leave {measure.name} out of measure.extra"
        )
    raise ValueError(
        f"protocol {protocol}: measure {column} is {values[row, at]} at {place}, and {share}. States or logits "
        "overflow there, or are all zero: give capture.dtype=float64, or another sparsity or model"
    )
