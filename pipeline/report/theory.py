"""Heat map of where the theorems hold: how well each estimate ranks the measured deviations, layer by layer."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from pipeline.analysis import series, theorems
from pipeline.evaluate.verdict import KEPT, LOST, UNDECIDED
from pipeline.report.table import NONE, Body, Cell, Column, Table, number
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import rows_of, variants_of

FULL_LOSS = 0.9  # distance below the required correlation at which the tint is deepest


def tracking(tables: Tables) -> pd.DataFrame:
    """Compute `theorems.tracking` of the layer protocol at temperature 1; empty if it was not measured."""
    try:
        return theorems.tracking(tables.protocol("layer"))
    except MissingData:
        return pd.DataFrame()


def heat_map(tracked: pd.DataFrame) -> Table | None:
    """Return the rank correlations in percent: a column per layer, a row per theorem, variant and sublayer."""
    if tracked.empty:
        return None
    layers = sorted(int(layer) for layer in tracked["layer"].unique())
    names = [str(name) for name in tracked["theorem"].drop_duplicates()]
    bodies = [
        Body(tuple(_rows(tracked[tracked["theorem"] == name], layers)), f"Theorem {name}", fixed=True) for name in names
    ]
    columns = (Column("variant, sublayer", words=True), *(Column(str(layer)) for layer in layers))
    return Table("", columns, tuple(bodies), sortable=False)


def sentence(tracked: pd.DataFrame) -> str:
    """Say in how many cells of the heat map the estimates rank well, do not, or may do either."""
    known = tracked if tracked.empty else tracked.dropna(subset=["rank_correlation"])
    if known.empty:
        return ""
    counts = Counter(theorems.tracks(known))
    return (
        f"The estimates of theorems 1 to 3 rank the measured deviations with a correlation of at least "
        f"{theorems.LEAST_CORRELATION:g} in {counts[KEPT]} of {len(known)} places (a layer of a variant), by the whole "
        f"95\u00a0% interval over prompts; in {counts[LOST]} the interval is below, in {counts[UNDECIDED]} it cannot "
        "be told."
    )


def _rows(rows: pd.DataFrame, layers: list[int]) -> list[tuple[Cell, ...]]:
    lines: list[tuple[Cell, ...]] = []
    for variant in variants_of(rows):
        own = rows_of(rows, [variant])
        for sublayer in [name for name in series.SUBLAYER_NAMES if (own["sublayer"] == name).any()]:
            values = own[own["sublayer"] == sublayer].set_index("layer")["rank_correlation"]
            cells = [_cell(values, layer) for layer in layers]
            lines.append((Cell(f"{variant.label}, {series.SUBLAYER_NAMES[sublayer]}"), *cells))
    return lines


def _cell(values: pd.Series, layer: int) -> Cell:
    if layer not in values.index:
        return Cell(NONE)
    value = float(values[layer])
    over = value - theorems.LEAST_CORRELATION
    return number(100 * value, ".0f", tone=over / (1 - theorems.LEAST_CORRELATION if over >= 0 else FULL_LOSS))
