"""Page of maps of layer and step, drawn as one, with the colour bar that all of them share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import Colormap, LogNorm
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator

from pipeline.plot import canvas, scales, style, tiles
from pipeline.plot.letters import text_width

ABSENT, UNDER = "#c9c9c9", "white"  # cells without a finite value, and below the scale
LEAST, OF_LAYER = 1.5, 0.055  # height of a map in inches, and how much of it a further layer takes
MOST = {1: 3.4, 2: 2.5}  # by the number of rows of maps
BAR, TIP = 0.1, 0.05  # width of the colour bar in inches, and how much of it a tip takes
SHADES = 256
LINE, PAD, GAP = 0.135, 0.08, 0.17  # inches: a line of text, from an axis to its numbers, and beside a map
BELOW = 0.23  # inches from an axis to its label below


class Bar(NamedTuple):
    """The colours of all maps: their scale, whether cells are above it, and the label."""

    norm: LogNorm
    colours: Colormap
    above: bool
    label: str


def colours() -> Colormap:
    """Return the colours of maps, from light to dark."""
    return sns.color_palette("mako_r", as_cmap=True).with_extremes(bad=ABSENT, under=UNDER)


def map_page(rows: int, columns: int, data: pd.DataFrame, bar: Bar, **look: Any) -> tuple[tiles.Tiles, np.ndarray]:
    """Return a page with the frames of maps and the colour bar, and the layers, the first of which is at the bottom.

    Args:
        rows: of maps.
        columns: of maps.
        data: columns layer and step.
        bar: the colours.
        look: title, caption and handles, see `canvas.blank`.
    """
    layers = np.sort(data["layer"].unique())
    axis = _layer_axis(layers)
    height = float(np.clip(LEAST + OF_LAYER * (len(layers) - 8), LEAST, MOST[rows]))
    places, numbers = scales.decade_ticks(float(bar.norm.vmin or 0.0), float(bar.norm.vmax or 1.0))
    left = style.EDGE + LINE + 0.05 + _widest(axis.labels) + PAD
    lines = bar.label.count("\n") + 1
    right = GAP + BAR + PAD + _widest(numbers) + 0.05 + lines * LINE + style.EDGE
    width = (style.width() - left - right - (columns - 1) * GAP) / columns
    inside = rows * (height + canvas.PANEL_TITLE) + canvas.LABEL_HEIGHT
    high = (inside - canvas.LABEL_HEIGHT) / rows - canvas.PANEL_TITLE - 0.06
    corners = [
        (left + column * (width + GAP), canvas.LABEL_HEIGHT + (rows - 1 - row) * (inside - canvas.LABEL_HEIGHT) / rows)
        for row in range(rows)
        for column in range(columns)
    ]
    steps = data["step"].to_numpy(dtype=float)
    page = tiles.place(inside, corners, (width, high), (steps, scales.TICKS), [axis] * columns, PAD, 0.5, **look)
    page.frame(range(rows * columns), "none")
    below, beside = range((rows - 1) * columns, rows * columns), range(0, rows * columns, columns)
    page.number(below, beside)
    for panel in below:
        x, y = page.places[panel]
        page.write(x + width / 2, y - BELOW, "generation step", style.TEXT_SIZE, ha="center", va="top")
    for panel in beside:
        at = page.places[panel][1] + high / 2
        page.write(style.EDGE, at, "layer", style.TEXT_SIZE, rotation=90, ha="left", va="center")
    _draw_bar(page, bar, places, numbers)
    return page, layers


def draw_cells(page: tiles.Tiles, panel: int, part: pd.DataFrame, bar: Bar, layers: np.ndarray) -> None:
    """Draw the medians of one map, all of whose steps are whole numbers."""
    steps = np.sort(part["step"].unique())
    cells = part.pivot(index="layer", columns="step", values="median").reindex(index=layers, columns=steps)
    left, bottom = page.places[panel]
    x = left + page.across(np.append(steps, steps[-1] + 1) - 0.5)
    y = bottom + page.up(panel, np.arange(len(layers) + 1) - 0.5)
    _mesh(page, x, y, np.ma.masked_invalid(cells.to_numpy(dtype=float)), bar)


def _mesh(page: tiles.Tiles, x: np.ndarray, y: np.ndarray, cells: np.ndarray, bar: Bar) -> None:
    # As an image, cells have no seams between them and the file stays small at many layers and steps.
    corners = np.stack(np.meshgrid(x, y), axis=-1)
    look: dict[str, Any] = {"norm": bar.norm, "cmap": bar.colours, "edgecolors": "none", "linewidth": 0, "zorder": 0}
    mesh = QuadMesh(corners, antialiased=False, rasterized=True, **look)
    mesh.set_array(cells)
    page.ax.add_collection(mesh, autolim=False)


def _layer_axis(layers: np.ndarray) -> scales.Linear:
    """Return the axis of places of layers: not every layer need have been measured."""
    found = MaxNLocator(nbins=6, integer=True, min_n_ticks=1).tick_values(0, max(1, len(layers) - 1))
    places = [float(place) for place in found if 0 <= place < len(layers)]
    return scales.Linear(-0.5, len(layers) - 0.5, places, [f"{layers[int(place)]:g}" for place in places])


def _draw_bar(page: tiles.Tiles, bar: Bar, places: list[float], numbers: list[str]) -> None:
    """Draw the colour bar over the height of all maps, with a tip if cells are above its scale."""
    left = max(x for x, _ in page.places) + page.size[0] + GAP
    bottom, top = min(y for _, y in page.places), max(y for _, y in page.places) + page.size[1]
    end = top - TIP * (top - bottom) * bar.above
    shades = np.geomspace(float(bar.norm.vmin or 0.0), float(bar.norm.vmax or 1.0), SHADES)
    _mesh(page, np.array([left, left + BAR]), np.linspace(bottom, end, SHADES + 1), shades[:, None], bar)
    if bar.above:
        tip = [(left, end), (left + BAR, end), (left + BAR / 2, top)]
        page.ax.add_patch(Polygon(tip, color=bar.colours(1.0), linewidth=0))
    high = bottom + np.asarray(bar.norm(places), dtype=float) * (end - bottom)
    ticks = [[(left + BAR, y), (left + BAR + tiles.TICK, y)] for y in high]
    page.ax.add_collection(LineCollection(ticks, colors=style.GREY, linewidths=0.7), autolim=False)
    for y, text in zip(high, numbers, strict=True):
        page.write(left + BAR + PAD, y, text, style.SMALL_SIZE, ha="left", va="center_baseline")
    at = left + BAR + PAD + _widest(numbers) + 0.05
    label: dict[str, Any] = {"rotation": 90, "ha": "left", "va": "center", "parse_math": True}
    page.write(at, (bottom + top) / 2, bar.label, style.TEXT_SIZE, multialignment="center", **label)


def _widest(texts: list[str]) -> float:
    """Return the width of the widest of these labels of ticks, in inches."""
    return max((text_width(text, style.SMALL_SIZE) for text in texts), default=0.0)
