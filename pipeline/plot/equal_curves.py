"""Curves that several variants share, drawn once: a dropped sublayer measures the same whichever pruner drops it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.analysis.series import SUBLAYER_NAMES
from pipeline.tables.variants import rows_of, variants_of


def draw_once(curves: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Keep, for each sublayer, the first of the variants with equal curves; return a note that names them, too.

    Args:
        curves: rows with columns pruner, sparsity, options, sublayer, the keys and the values.
        keys: the columns that tell the points of one variant and sublayer apart.
        values: the columns that must be equal, up to a difference that no figure could show.
    """
    kept: list[pd.DataFrame] = []
    notes = []
    for sublayer, name in SUBLAYER_NAMES.items():
        part = curves[curves["sublayer"] == sublayer].sort_values(list(keys), kind="stable")
        firsts: list[tuple[list[str], pd.DataFrame]] = []
        for variant in variants_of(part):
            own = rows_of(part, [variant])
            twin = next((labels for labels, first in firsts if _equal(first, own, keys, values)), None)
            if twin is None:
                firsts.append(([variant.label], own))
            else:
                twin.append(variant.label)
        kept += [rows for _, rows in firsts]
        notes += [f"{name} of {' and '.join(labels)}" for labels, _ in firsts if len(labels) > 1]
    note = (f"Identical curves drawn once: {'; '.join(notes)}.",) if notes else ()
    return pd.concat(kept).sort_index(), note


def _equal(first: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> bool:
    if not np.array_equal(first[list(keys)].to_numpy(), other[list(keys)].to_numpy()):
        return False
    # Two jobs may differ by the rounding of their kernels.
    return np.allclose(first[list(values)], other[list(values)], rtol=1e-4, atol=1e-9, equal_nan=True)
