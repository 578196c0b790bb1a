"""Tables of where the theorems hold: how well each estimate ranks the measured deviations, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.analysis import series, theorems
from pipeline.report.table import NONE, Cell, Column, Table, number
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import rows_of, variants_of

FULL_LOSS = 0.9  # distance below the required correlation at which the tint is deepest


@dataclass(frozen=True)
class Heat:
    """Rank correlations of one theorem, and how many of the known ones are high enough."""

    name: str
    reached: int
    known: int
    table: Table


def tracking(tables: Tables) -> pd.DataFrame:
    """Compute `theorems.tracking` of the layer protocol at temperature 1; empty if it was not measured."""
    try:
        return theorems.tracking(tables.protocol("layer"))
    except MissingData:
        return pd.DataFrame()


def heat_tables(tracked: pd.DataFrame) -> list[Heat]:
    """Return the heat table of each theorem, with a row per variant and sublayer and a column per layer."""
    if tracked.empty:
        return []
    layers = sorted(int(layer) for layer in tracked["layer"].unique())
    names = tracked["theorem"].drop_duplicates()
    return [_heat(str(name), tracked[tracked["theorem"] == name], layers) for name in names]


def _heat(theorem: str, rows: pd.DataFrame, layers: list[int]) -> Heat:
    known = rows["rank_correlation"].dropna()
    reached = int((known >= theorems.LEAST_CORRELATION).sum())
    return Heat(f"Theorem {theorem}", reached, len(known), _table(rows, layers))


def _table(rows: pd.DataFrame, layers: list[int]) -> Table:
    lines: list[tuple[Cell, ...]] = []
    for variant in variants_of(rows):
        own = rows_of(rows, [variant])
        for sublayer in [name for name in series.SUBLAYER_NAMES if (own["sublayer"] == name).any()]:
            values = own[own["sublayer"] == sublayer].set_index("layer")["rank_correlation"]
            cells = [_cell(values, layer) for layer in layers]
            lines.append((Cell(f"{variant.label}, {series.SUBLAYER_NAMES[sublayer]}", len(lines)), *cells))
    columns = (Column("variant, sublayer", words=True), *(Column(str(layer)) for layer in layers))
    return Table("", columns, tuple(lines))


def _cell(values: pd.Series, layer: int) -> Cell:
    if layer not in values.index:
        return Cell(NONE)
    value = float(values[layer])
    over = value - theorems.LEAST_CORRELATION
    return number(value, ".2f", tone=over / (1 - theorems.LEAST_CORRELATION if over >= 0 else FULL_LOSS))
