"""Layer protocol: fig06 over temperatures for one variant; figure 11 of the paper has 0.3, 0.5, 0.7, 1 and 1.3."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.plot import canvas, scales, softmax_estimates
from pipeline.plot.base import Figure, Selection
from pipeline.plot.middle_layer import middle_steps
from pipeline.plot.single_variant import single_variant
from pipeline.plot.variant_notes import not_shown_note
from pipeline.tables.read import Tables, require
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, variants_of

COLUMNS = 6
STEPS = 4  # ticks below a panel


def select(tables: Tables) -> Selection:
    """Select measured and estimated `1 - cos(p, q)` and KL per temperature and step.

    Each is given as median and quartiles over prompts.
    """
    rows = tables.protocol("layer")
    counts = rows.groupby(VARIANT)["temperature"].transform("nunique")
    if counts.max() < 2:
        raise MissingData("the layer protocol was measured at a single temperature for these settings")
    others = variants_of(rows)
    rows, variant = single_variant(tables, rows[counts > 1])
    require(rows, softmax_estimates.COLUMNS)
    measured = np.sort(rows["temperature"].unique())
    shown = measured[np.linspace(0, len(measured) - 1, min(COLUMNS, len(measured))).round().astype(int)]
    parts = []
    for temperature in shown:
        at = rows[rows["temperature"] == temperature]
        steps, place, notes = middle_steps(at, softmax_estimates.values_of, 1)
        parts.append(steps.assign(temperature=temperature))
    notes = (f"{variant.label}.", *notes, softmax_estimates.FORMULAS)
    notes += not_shown_note(other for other in others if other != variant)
    if len(shown) < len(measured):
        left_out = [f"{value:g}" for value in measured if value not in shown]
        notes += (f"Left out for space: temperatures {', '.join(left_out)}.",)
    title = f"Measured change of p and its estimate over temperatures ({place})"
    return Selection(title, softmax_estimates.split_sources(pd.concat(parts, ignore_index=True)), notes)


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a column for each temperature, with the deviation of p above and KL below."""
    temperatures, quantities = sorted(data["temperature"].unique()), softmax_estimates.QUANTITIES
    sheet, axes = canvas.page(
        len(quantities),
        len(temperatures),
        title=title,
        caption=caption,
        handles=softmax_estimates.handles(),
        sharey="row",
        row_height=1.6,
    )
    for row, quantity in zip(axes, quantities, strict=True):
        shared = data[data["quantity"] == quantity]
        for ax, temperature in zip(row, temperatures, strict=True):
            own = shared[shared["temperature"] == temperature]
            if own.empty:
                canvas.empty_panel(ax, f"no finite\n{quantity}")
                continue
            softmax_estimates.panel(ax, own, shared)
    for ax, temperature in zip(axes[0], temperatures, strict=True):
        canvas.panel_title(ax, f"T = {temperature:g}")
    for ax in axes.flat:
        scales.whole_steps(ax, STEPS)
    canvas.outer_labels(axes, "generation step", "")
    for row, label in zip(axes, quantities.values(), strict=True):
        next((ax for ax in row if ax.axison), row[0]).set_ylabel(label)
    return sheet


FIGURE = Figure(select, draw, version=3)
