"""Layer protocol over steps, a small panel for each layer: the supplements of figures 14 to 21."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.plot import canvas, scales, tiles
from pipeline.plot.base import Figure, Selection
from pipeline.plot.layer_curves import LayerCurves
from pipeline.plot.single_variant import first_sublayer
from pipeline.tables.read import Tables

MOST = 36  # panels on a page


def figure(curves: LayerCurves) -> Figure:
    """Return the figure with a small panel for each layer."""
    return Figure(partial(select, curves), partial(draw, curves), version=3)


def select(curves: LayerCurves, tables: Tables) -> Selection:
    """Select each quantity of one variant and sublayer per layer and step: median and quartiles over prompts."""
    rows, variant, notes = curves.choose(tables)
    rows, sublayer = first_sublayer(rows)
    rows, sampling_note = _layers_shown(rows)
    data, gaps = curves.profile(rows)
    name = series.SUBLAYER_NAMES[sublayer]
    notes = (
        f"{variant.label}, pruning the {name} of one layer at a time, on dense inputs.",
        series.step_note(rows),
        *notes,
        "All panels share their axes.",
        *sampling_note,
        *gaps,
    )
    return Selection(f"{curves.title}, step by step ({name})", data, notes)


def draw(curves: LayerCurves, data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a panel for each layer, in reading order."""
    layers = sorted(data["layer"].unique())
    handles = [canvas.line_handle(curve.label, curve.colour, curve.line, width=curve.width) for curve in curves.curves]
    page = tiles.tiles(
        [f"layer {layer:g}" for layer in layers],
        data["step"].to_numpy(),
        scales.Decades.of(data[series.STATISTICS].to_numpy().ravel(), ticks=tiles.TICKS),
        title=title,
        caption=caption,
        handles=[*handles, *canvas.statistic_handles()],
        xlabel="generation step",
        ylabel=curves.label,
    )
    for curve in curves.curves:
        parts = data[data["quantity"] == curve.quantity].groupby("layer")
        strands = [tiles.Strand.of(layers.index(layer), rows) for layer, rows in parts]
        page.draw(strands, curve.colour, curve.line, curve.width)
    return page.sheet


def _layers_shown(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows of all layers, or of evenly spaced ones with a note if a page has no room for all."""
    layers = np.sort(rows["layer"].unique())
    if len(layers) <= MOST:
        return rows, ()
    shown = layers[np.linspace(0, len(layers) - 1, MOST).round().astype(int)]
    return rows[rows["layer"].isin(shown)], (f"{MOST} of {len(layers)} layers, evenly spaced.",)
