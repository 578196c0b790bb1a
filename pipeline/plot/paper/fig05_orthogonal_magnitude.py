"""Layer protocol: relative orthogonal magnitude of the change of h and z over steps at one middle layer."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.plot import canvas, scales, style, variant_lines
from pipeline.plot.base import Figure, Selection
from pipeline.plot.middle_layer import middle_steps
from pipeline.tables.read import Tables, require
from pipeline.tables.variants import variants_of

LINES = 6
SPACES = ("h", "z")


def select(tables: Tables) -> Selection:
    """Select `|orthogonal part of dx|^2 / |x|^2` per variant, space and step: median and quartiles over prompts."""
    rows, _ = series.at_temperature(tables.protocol("layer"))  # h and z are the same at every temperature
    require(rows, [f"orth_{space}" for space in SPACES])
    data, place, notes = middle_steps(
        rows, lambda part: {space: part[f"orth_{space}"].clip(lower=0.0) for space in SPACES}, LINES
    )
    notes += ("Neither h nor z depends on the temperature.",)
    title = f"Orthogonal part of the change over steps ({place})"
    return Selection(title, data.rename(columns={"quantity": "space"}), notes)


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a panel for h and one for z, with a line for each variant."""
    variants = variants_of(data)
    sheet, axes = canvas.page(1, 2, title=title, caption=caption, handles=variant_lines.handles(variants), sharey="row")
    for ax, space in zip(axes[0], SPACES, strict=True):
        part = data[data["space"] == space]
        variant_lines.draw(ax, part, variants)
        scales.decade_axis(ax, data[series.STATISTICS].to_numpy().ravel())
        scales.whole_steps(ax)
        canvas.panel_title(ax, style.SPACE_NAMES[space], style.SPACE_COLOURS[space])
    canvas.outer_labels(axes, "generation step", r"$\|\Delta x_\perp\|^2 \,/\, \|x\|^2$")
    return sheet


FIGURE = Figure(select, draw, version=2)
