"""Many small panels with the same axes, drawn as one: each kind of line, and the frames, are one collection.

A panel of its own takes matplotlib so long that a page of thirty would take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from pipeline.plot import canvas, style
from pipeline.plot.scales import Decades

COLUMNS = 6
ROW_HEIGHT = 0.92  # inches, where there are more than two rows
ABOVE, LEFT, RIGHT = 0.24, 0.76, 0.1  # inches around the panels, with their titles and the labels of the y axis
GAPS = (0.24, 0.12)  # inches between rows and between columns
TICKS = 4  # labels above one another in a panel
TICK, PAD = 0.035, 0.05  # inches: the length of a tick, and from the axis to its labels
EDGES = 0.05  # of the width of a panel, beside its lines
GRID = "#e6e6e6"


@dataclass(frozen=True)
class Strand:
    """Median line and quartile band of one panel: all of the same length, x in ascending order."""

    panel: int
    x: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Tiles:
    """Panels on a page addressed in inches from its lower left corner."""

    sheet: Canvas
    ax: Axes
    places: list[tuple[float, float]]  # the lower left corner of each panel
    size: tuple[float, float]
    columns: int
    steps: np.ndarray  # ticks of the x axis
    span: tuple[float, float]  # limits of the x axis
    scale: Decades

    def across(self, x: np.ndarray) -> np.ndarray:
        """Return how far from the left edge of a panel values of x lie, in inches."""
        start, end = self.span
        return (np.asarray(x, dtype=float) - start) / (end - start) * self.size[0]

    def up(self, y: np.ndarray | Sequence[float]) -> np.ndarray:
        """Return how far above the lower edge of a panel values of y lie, in inches."""
        return self.scale.heights(y) * self.size[1]

    def draw(self, strands: Sequence[Strand], colour: str, line: LineStyleType, width: float) -> None:
        """Draw the lines of one quantity with their bands, in all panels that have it."""
        lines, bands = [], []
        for strand in strands:
            x = self.across(strand.x)
            low, median, high = (self._moved(strand.panel, x, y) for y in (strand.low, strand.median, strand.high))
            there = np.isfinite(low).all(axis=1) & np.isfinite(high).all(axis=1)
            lines.append(median)
            bands.append(np.concatenate([low[there], high[there][::-1]]))
        self.ax.add_collection(
            PolyCollection(bands, facecolor=colour, alpha=style.BAND_ALPHA, linewidth=0), autolim=False
        )
        look = {"colors": colour, "linestyles": [line], "linewidths": width}
        self.ax.add_collection(LineCollection(lines, **look), autolim=False)  # type: ignore[arg-type]
        if dots := [line[0] for line in lines if len(line) == 1]:
            self.ax.plot(*zip(*dots, strict=True), "o", color=colour, markersize=3)

    def _moved(self, panel: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.column_stack([x, self.up(y)]) + self.places[panel]

    def frame(self, titles: Sequence[str], xlabel: str, ylabel: str) -> None:
        """Draw grids, axes, titles, and labels at the outer panels."""
        width, height = self.size
        along, high = self.across(self.steps), self.up(self.scale.places)
        grid, axes, ticks = [], [], []
        for left, bottom in self.places:
            grid += [[(left + x, bottom), (left + x, bottom + height)] for x in along]
            grid += [[(left, bottom + y), (left + width, bottom + y)] for y in high]
            axes += [[(left, bottom + height), (left, bottom), (left + width, bottom)]]
            ticks += [[(left + x, bottom), (left + x, bottom - TICK)] for x in along]
            ticks += [[(left, bottom + y), (left - TICK, bottom + y)] for y in high]
        self._lines(grid, GRID, 0.6)
        self._lines([*axes, *ticks], style.GREY, 0.7)
        for (left, bottom), title in zip(self.places, titles, strict=True):
            self._text(left, bottom + height + 0.04, title, style.TEXT_SIZE, va="bottom", ha="left")
        for place, (left, bottom) in enumerate(self.places):
            if place % self.columns == 0:
                for y, text in zip(high, self.scale.labels, strict=True):
                    self._text(left - PAD, bottom + y, text, style.SMALL_SIZE, ha="right", va="center_baseline")
            if place + self.columns >= len(self.places):
                for x, step in zip(along, self.steps, strict=True):
                    self._text(left + x, bottom - PAD, f"{step:g}", style.SMALL_SIZE, ha="center", va="top")
        self._names(xlabel, ylabel)

    def _names(self, xlabel: str, ylabel: str) -> None:
        """Write the names of both axes in the middle of the panels."""
        lefts, bottoms = zip(*self.places, strict=True)
        middle = (min(lefts) + max(lefts) + self.size[0]) / 2
        rise = (min(bottoms) + max(bottoms) + self.size[1]) / 2
        self._text(middle, min(bottoms) - canvas.LABEL_HEIGHT + 0.04, xlabel, style.TEXT_SIZE, ha="center", va="bottom")
        look: dict[str, Any] = {"rotation": 90, "ha": "left", "va": "center"}
        self.ax.text(style.EDGE, rise, ylabel, size=style.TEXT_SIZE, color=style.INK, **look)  # may have a formula

    def _lines(self, segments: Sequence[Sequence[tuple[float, float]]], colour: str, width: float) -> None:
        lines = LineCollection(segments, colors=colour, linewidths=width, capstyle="projecting", zorder=0.5)
        self.ax.add_collection(lines, autolim=False)

    def _text(self, x: float, y: float, text: str, size: float, **look: str) -> None:
        self.ax.text(x, y, text, size=size, color=style.INK, parse_math=False, **look)  # type: ignore[arg-type]


def tiles(
    titles: Sequence[str],
    steps: np.ndarray,
    scale: Decades,
    *,
    title: str,
    caption: str,
    handles: Sequence[Artist],
    xlabel: str,
    ylabel: str,
) -> Tiles:
    """Return a page with a panel for each title, in rows of about equal length, and with all but its curves drawn.

    Args:
        steps: all values on the x axis, whole numbers.
        scale: the y axis.
    """
    rows = math.ceil(len(titles) / COLUMNS)
    columns = math.ceil(len(titles) / rows)
    height = ROW_HEIGHT if rows > 2 else canvas.PANEL_HEIGHTS[rows]
    inside = ABOVE + rows * height + (rows - 1) * GAPS[0] + canvas.LABEL_HEIGHT
    sheet, _ = canvas.blank(inside, title=title, caption=caption, handles=handles)
    page = tuple(float(side) for side in sheet.get_size_inches())
    width = (page[0] - LEFT - RIGHT - (columns - 1) * GAPS[1]) / columns
    ax = sheet.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, page[0]), ylim=(0, page[1]))
    bottom = sheet.foot + canvas.LABEL_HEIGHT
    places = [
        (LEFT + column * (width + GAPS[1]), bottom + (rows - 1 - row) * (height + GAPS[0]))
        for row, column in (divmod(place, columns) for place in range(len(titles)))
    ]
    first, last = float(steps.min()), float(steps.max())
    air = EDGES * (last - first) or 0.5
    ticks = np.asarray(MaxNLocator(nbins=4, integer=True, min_n_ticks=1).tick_values(first, last), dtype=float)
    ticks = ticks[(first - air <= ticks) & (ticks <= last + air)]
    made = Tiles(sheet, ax, places, (width, height), columns, ticks, (first - air, last + air), scale)
    made.frame(titles, xlabel, ylabel)
    return made
