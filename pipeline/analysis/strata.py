"""Deviations within strata of the dense model's confidence, with bootstrap intervals over prompts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipeline.analysis.bootstrap import interval

COUNT = 5
# Measures of confidence, and whether they rise (1) or fall (-1) with it.
CONFIDENCES = {"top1": 1, "entropy": -1, "margin": 1}
COLUMNS = [
    "quantity", "stratum", "lower", "upper", "n",
    "kl", "kl_low", "kl_high", "est_kl", "remainder", "flip", "flip_low", "flip_high",
]  # fmt: skip


def split(values: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut positions at the quintiles of a measure of confidence.

    Equal values share a stratum, so strata may be empty where many positions are equally sure.

    Args:
        values: (n,) finite numbers.
        sign: 1 if confidence rises with the values, -1 if it falls.

    Returns:
        The stratum of each value, from 1 for the least confident fifth to 5, and the 6 bounds, from least to most
        confident.
    """
    signed = sign * values
    bounds = np.quantile(signed, np.linspace(0, 1, COUNT + 1))
    return 1 + np.searchsorted(bounds[1:-1], signed, side="left"), sign * bounds


def strata(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute means within each stratum of each measure of confidence, for the positions of one variant.

    Args:
        rows: prompt, kl, est_kl, flip and the measures of confidence, one row per position.

    Returns:
        `COLUMNS`: the measure, the stratum, its bounds in the measure's unit, its positions, exact KL (nats) with
        its 95 % interval, the estimate of theorem 3, exact minus estimate, and the fraction of positions whose
        argmax differs, with its interval. Empty strata have no row.
    """
    return pd.DataFrame([row for name in CONFIDENCES for row in _of_one_measure(rows, name)], columns=COLUMNS)


def _of_one_measure(rows: pd.DataFrame, name: str) -> Iterator[dict[str, object]]:
    finite = rows[np.isfinite(rows[[name, "kl", "est_kl", "flip"]].astype(float)).all(axis=1)]
    if finite.empty:
        return
    places, bounds = split(finite[name].to_numpy(dtype=float), CONFIDENCES[name])
    for stratum in np.unique(places):
        part = finite[places == stratum]
        lower, upper = sorted(bounds[stratum - 1 : stratum + 1])
        row: dict[str, object] = {"quantity": name, "stratum": str(stratum)}
        row |= {"lower": lower, "upper": upper, "n": len(part)}
        row |= {column: part[column].mean() for column in ("kl", "est_kl", "flip")}
        row["remainder"] = part["kl"].mean() - part["est_kl"].mean()
        for column in ("kl", "flip"):
            row[f"{column}_low"], row[f"{column}_high"] = interval(part[column], part["prompt"])
        yield row
