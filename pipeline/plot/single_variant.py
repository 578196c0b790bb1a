"""Choice of the variant and sublayer for figures that have room for only one."""

from __future__ import annotations

import pandas as pd

from pipeline.analysis import series
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import Variant, lowest, precedence, rows_of, variants_of


def single_variant(tables: Tables, rows: pd.DataFrame) -> tuple[pd.DataFrame, Variant]:
    """Return the rows of one variant: one that drops attention if measured, as in the paper's figures.

    Of the variants that change anything (of all, if none does), a pruner that drops attention alone comes first, then
    the usual order; each at its lowest nonzero sparsity.

    Raises:
        MissingData: if there is neither attention nor MLP among `rows`.
    """
    rows = rows[rows["sublayer"].isin(series.SUBLAYER_NAMES)]
    if rows.empty:
        raise MissingData("the layer protocol has no attention or MLP rows for these settings")
    moved = rows[rows["orth_h"] > 0]
    candidates = lowest(variants_of(rows if moved.empty else moved))
    variant = min(candidates, key=lambda one: (tables.unit(one.pruner) != "attention", precedence(one.pruner)))
    return rows_of(rows, [variant]), variant


def first_sublayer(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows of one kind of sublayer and that kind: attention if it was measured, else the MLP."""
    sublayer = next(name for name in series.SUBLAYER_NAMES if (rows["sublayer"] == name).any())
    return rows[rows["sublayer"] == sublayer], sublayer
