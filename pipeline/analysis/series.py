"""Aggregation of measures over prompts (and steps) into the median line and the band that a figure draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.tables.variants import VARIANT, Variant, magnitude, ordered, rows_of, variants_of

ROUNDING = 1e-6  # error of a cosine in single precision, with a margin
SPACES = ("h", "z", "p")
QUARTILES = (0.25, 0.75)
STATISTICS = ["median", "low", "high"]
SUBLAYER_NAMES = {"attention": "attention", "mlp": "MLP"}


def step_note(rows: pd.DataFrame) -> str:
    """Return the caption sentence on the line and the band of curves over steps, with the number of prompts."""
    count = rows["probe"].nunique()
    return f"Line: median over {count} probe prompts; band: quartiles; only steps that at least half of them reach."


def at_temperature(rows: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Return the rows at temperature 1.0, or at the lowest one if 1.0 was not measured, and that temperature."""
    present = sorted(rows["temperature"].unique())
    chosen = 1.0 if 1.0 in present else float(present[0])
    return rows[rows["temperature"] == chosen], chosen


def deviation(cosine: pd.Series) -> pd.Series:
    """Compute `1 - cos`, clipping the rounding noise of a cosine just above one to zero."""
    return (1.0 - cosine.astype(float)).clip(lower=0.0)


def profile(rows: pd.DataFrame, by: Sequence[str], values: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Compute median and quartiles of each quantity over prompts, for each combination of `by`.

    A prompt counts once, by its mean over whatever else varies: long texts must not count more.

    Args:
        rows: measures, one row per position.
        by: columns to keep apart.
        values: quantity name -> one value for each of `rows` (same index); values that are not finite are left out.

    Returns:
        Columns: `by`, quantity, median, low, high (the quartiles), mean, n (positions), mean_by_position (over all
        positions alike), sorted by quantity (as given), then `by`.
    """
    # Rows are grouped by a number, and once: grouping by words takes longer than all that is computed here.
    place = rows.groupby(list(by)).ngroup()
    keys = rows[list(by)].set_axis(place).loc[lambda frame: ~frame.index.duplicated()]
    single = "prompt" not in rows or "prompt" in by
    prompts = None if single else pd.Series(pd.factorize(rows["prompt"], sort=True)[0], rows.index)
    parts = []
    for quantity, column in values.items():
        finite = column.astype(float).replace([np.inf, -np.inf], np.nan).dropna()
        groups = finite.groupby(place.loc[finite.index])
        part = pd.DataFrame({"n": groups.size(), "mean_by_position": groups.mean()})
        if prompts is not None:
            means = finite.groupby([place.loc[finite.index], prompts.loc[finite.index]]).mean()
            groups = means.groupby(level=0)
        part[STATISTICS[1:]] = groups.quantile(list(QUARTILES)).unstack()
        parts.append(keys.loc[part.index].assign(quantity=quantity, median=groups.median(), mean=groups.mean(), **part))
    return pd.concat(parts, ignore_index=True)[[*by, "quantity", *STATISTICS, "mean", "n", "mean_by_position"]]


def well_covered(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the steps that at least half of a variant's prompts reach: later medians are over ever fewer prompts."""
    most = steps.groupby([*VARIANT, "quantity"])["n"].transform("max")
    return steps[2 * steps["n"] >= most]


def drop_identical(steps: pd.DataFrame, dense: Mapping[str, float]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Remove variants of sparsity 0 that change nothing, unless that leaves none; return steps and a note.

    Args:
        steps: the result of `profile`.
        dense: the value of each quantity in the unchanged model; variants that differ by more than rounding stay.
    """
    off = (steps[STATISTICS].sub(steps["quantity"].map(dense), axis=0)).abs().max(axis=1)
    worst = off.groupby([steps[name] for name in VARIANT]).max()
    same = [Variant(*key) for key, value in worst.items() if magnitude(key[1]) == 0 and value < ROUNDING]
    kept = [variant for variant in variants_of(steps) if variant not in same]
    if not same or not kept:
        return steps, ()
    names = ", ".join(variant.label for variant in ordered(same))
    return rows_of(steps, kept), (f"Not shown, identical to the dense model at every position: {names}.",)


def merge_equal(steps: pd.DataFrame) -> pd.DataFrame:
    """Merge the sparsities of a pruner whose curves are the same into one, its sparsity a list ("0.2, 0.4").

    Under the layer protocol, a dropped sublayer measures the same at every sparsity of a layer dropper.
    """
    keys = ["quantity", "step"]
    parts = []
    for _, pruner in steps.groupby(["pruner", "options"], sort=True):
        curves: list[tuple[list[str], pd.DataFrame]] = []
        for sparsity, rows in pruner.groupby("sparsity", sort=False):
            rows = rows.sort_values(keys, kind="stable")
            twin = next((names for names, curve in curves if _same(curve, rows, keys)), None)
            if twin is None:
                curves.append(([str(sparsity)], rows))
            else:
                twin.append(str(sparsity))
        parts += [rows.assign(sparsity=", ".join(names)) for names, rows in curves]
    return pd.concat(parts, ignore_index=True)


def _same(first: pd.DataFrame, second: pd.DataFrame, keys: list[str]) -> bool:
    if not np.array_equal(first[keys].to_numpy(), second[keys].to_numpy()):
        return False
    # Two jobs may differ by the rounding of their kernels, which no figure could show.
    return np.allclose(first[STATISTICS].to_numpy(), second[STATISTICS].to_numpy(), rtol=1e-4, atol=1e-9)
