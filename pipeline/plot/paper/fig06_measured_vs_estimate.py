"""Layer protocol: measured deviation of p and KL against the estimates, over steps at one middle layer."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.plot import canvas, scales, softmax_estimates
from pipeline.plot.base import Figure, Selection
from pipeline.plot.middle_layer import middle_steps
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
    sheet, axes = canvas.page(len(variants), 2, title=title, caption=caption, handles=softmax_estimates.handles())
    for row, variant in zip(axes, variants, strict=True):
        own = rows_of(data, [variant])
        for ax, quantity in zip(row, quantities, strict=True):
            part = own[own["quantity"] == quantity]
            if part.empty:
                canvas.empty_panel(ax, f"{variant.label}: no finite {quantity}")
                continue
            shared, ticks = data[data["quantity"] == quantity], scales.most_ticks(len(variants))
            softmax_estimates.panel(ax, part, shared, ticks)
            canvas.panel_title(ax, variant.label)
    canvas.outer_labels(axes, "generation step", list(quantities.values()))
    return sheet


FIGURE = Figure(select, draw, version=2)
