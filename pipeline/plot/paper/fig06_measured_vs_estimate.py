"""Layer protocol: measured deviation of p and KL against the estimates, over steps at one middle layer."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.plot import scales, softmax_estimates
from pipeline.plot.base import Figure, Selection
from pipeline.plot.middle_layer import middle_steps
from pipeline.plot.panel_rows import Column, panel_rows
from pipeline.plot.tiles import Strand
from pipeline.tables.read import Tables, require
from pipeline.tables.variants import rows_of, variants_of

ROWS = 6


def select(tables: Tables) -> Selection:
    """Select measured and estimated `1 - cos(p, q)` and KL per variant and step: median and quartiles over prompts."""
    rows, temperature = series.at_temperature(tables.protocol("layer"))
    require(rows, softmax_estimates.COLUMNS)
    data, place, notes = middle_steps(rows, softmax_estimates.values_of, ROWS)
    notes += (softmax_estimates.FORMULAS, f"Temperature {temperature:g}.")
    title = f"Measured change of p and the theorems' estimate ({place})"
    return Selection(title, softmax_estimates.split_sources(data), notes)


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each variant, with the deviation of p on the left and KL on the right."""
    variants, quantities = variants_of(data), softmax_estimates.QUANTITIES
    rows = [rows_of(data, [variant]) for variant in variants]
    parts = [own[own["quantity"] == quantity] for own in rows for quantity in quantities]
    names = [variant.label for variant in variants for _ in quantities]
    empty = {
        panel: f"{names[panel]}: no finite {list(quantities)[panel % len(quantities)]}"
        for panel, part in enumerate(parts)
        if part.empty
    }
    page = panel_rows(
        [Column(_scale(data, quantity, len(variants)), label) for quantity, label in quantities.items()],
        names,
        data["step"].to_numpy(),
        xlabel="generation step",
        title=title,
        caption=caption,
        handles=softmax_estimates.handles(),
        empty=empty,
    )
    for source, (colour, line, width) in softmax_estimates.SOURCES.items():
        strands = [Strand.of(panel, part[part["source"] == source]) for panel, part in enumerate(parts)]
        page.draw(strands, colour, line, width)
    return page.sheet


def _scale(data: pd.DataFrame, quantity: str, rows: int) -> scales.Decades:
    """Return the axis of a column, which fits all rows."""
    values = data.loc[data["quantity"] == quantity, series.STATISTICS].to_numpy().ravel()
    return scales.Decades.of(values, ticks=scales.most_ticks(rows))


FIGURE = Figure(select, draw, version=3)
