"""Many panels drawn as one: each kind of line, and the frames, are one collection.

A panel of its own takes matplotlib so long that a page of thirty would take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
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
TICKS, STEPS = 4, 4  # labels above one another and side by side, in a small panel
TICK, PAD = 0.035, 0.05  # inches: the length of a tick, and from the axis to its labels
EDGES = 0.05  # of the width of a panel, beside its lines
GRID = "#e6e6e6"


class Scale(Protocol):
    """The y axis of a panel."""

    @property
    def places(self) -> Sequence[float]:
        """Values with a tick."""

    @property
    def labels(self) -> Sequence[str]:
        """Label of each tick."""

    def heights(self, values: np.ndarray | Sequence[float]) -> np.ndarray:
        """Return where values lie, from 0 at the bottom of the panel to 1 at its top."""


@dataclass(frozen=True)
class Strand:
    """Line and band of one panel: all of the same length, x in ascending order."""

    panel: int
    x: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, panel: int, rows: pd.DataFrame, x: str = "step") -> Strand:
        """Return the medians and quartiles of aggregated rows."""
        return cls(panel, *rows[[x, "low", "median", "high"]].to_numpy(dtype=float).T)


@dataclass(frozen=True)
class Tiles:
    """Panels on a page addressed in inches from its lower left corner, in reading order."""

    sheet: Canvas
    ax: Axes
    places: list[tuple[float, float]]  # the lower left corner of each panel
    size: tuple[float, float]
    steps: np.ndarray  # ticks of the x axis
    span: tuple[float, float]  # limits of the x axis
    scales: Sequence[Scale]  # of the panels of each column
    pad: float = PAD  # inches from the axes to their labels

    @property
    def columns(self) -> int:
        """How many panels are in a row."""
        return len(self.scales)

    def across(self, x: np.ndarray | Sequence[float]) -> np.ndarray:
        """Return how far from the left edge of a panel values of x lie, in inches."""
        start, end = self.span
        return (np.asarray(x, dtype=float) - start) / (end - start) * self.size[0]

    def up(self, panel: int, y: np.ndarray | Sequence[float]) -> np.ndarray:
        """Return how far above the lower edge of a panel values of y lie, in inches."""
        return self.scales[panel % self.columns].heights(y) * self.size[1]

    def draw(self, strands: Sequence[Strand], colour: str, line: LineStyleType, width: float) -> None:
        """Draw the lines of one quantity with their bands, in all panels that have it."""
        lines, bands = [], []
        for strand in strands:
            low, median, high = (
                self._moved(strand.panel, strand.x, y) for y in (strand.low, strand.median, strand.high)
            )
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

    def points(self, panel: int, x: np.ndarray, y: np.ndarray, marker: str, colour: str) -> None:
        """Draw points in one panel."""
        self.ax.plot(*self._moved(panel, x, y).T, marker, color=colour, markersize=4)

    def upright(self, values: Mapping[int, float], colour: str, line: LineStyleType) -> None:
        """Draw a line over the whole height at a value of x, in each panel that has one."""
        ends = []
        for panel, value in values.items():
            (left, bottom), x = self.places[panel], float(self.across([value])[0])
            ends.append([(left + x, bottom), (left + x, bottom + self.size[1])])
        look = {"colors": colour, "linestyles": [line], "linewidths": 1.0}
        self.ax.add_collection(LineCollection(ends, **look), autolim=False)  # type: ignore[arg-type]

    def belt(self, panels: Sequence[int], low: float, high: float) -> None:
        """Shade the values of y from low to high, as far as they are on the axis."""
        belts = []
        for panel in panels:
            (left, bottom), ends = self.places[panel], np.clip(self.up(panel, [low, high]), 0.0, self.size[1])
            right = left + self.size[0]
            belts.append([(left, bottom + ends[0]), (right, bottom + ends[0]),
                          (right, bottom + ends[1]), (left, bottom + ends[1])])  # fmt: skip
        look: dict[str, Any] = {"facecolor": style.GREY, "alpha": 0.12, "linewidth": 0, "zorder": 0}
        self.ax.add_collection(PolyCollection(belts, **look), autolim=False)

    def _moved(self, panel: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.column_stack([self.across(x), self.up(panel, y)]) + self.places[panel]

    def frame(self, panels: Sequence[int], grid_of: Literal["both", "y", "none"] = "both") -> None:
        """Draw the axes of these panels with their ticks, and a grid at the ticks of both axes, of one or of none."""
        width, height = self.size
        along = self.across(self.steps)
        grid, axes, ticks = [], [], []
        for panel in panels:
            left, bottom = self.places[panel]
            high = self.up(panel, self.scales[panel % self.columns].places)
            if grid_of == "both":
                grid += [[(left + x, bottom), (left + x, bottom + height)] for x in along]
            if grid_of != "none":
                grid += [[(left, bottom + y), (left + width, bottom + y)] for y in high]
            axes += [[(left, bottom + height), (left, bottom), (left + width, bottom)]]
            ticks += [[(left + x, bottom), (left + x, bottom - TICK)] for x in along]
            ticks += [[(left, bottom + y), (left - TICK, bottom + y)] for y in high]
        self._lines(grid, GRID, 0.6)
        self._lines([*axes, *ticks], style.GREY, 0.7)

    def number(self, below: Sequence[int], beside: Sequence[int]) -> None:
        """Label the ticks below and on the left of these panels."""
        for panel in beside:
            (left, bottom), scale = self.places[panel], self.scales[panel % self.columns]
            for y, text in zip(self.up(panel, scale.places), scale.labels, strict=True):
                self.write(left - self.pad, bottom + y, text, style.SMALL_SIZE, ha="right", va="center_baseline")
        for panel in below:
            left, bottom = self.places[panel]
            for x, step in zip(self.across(self.steps), self.steps, strict=True):
                self.write(left + x, bottom - self.pad, f"{step:g}", style.SMALL_SIZE, ha="center", va="top")

    def title(self, panel: int, text: str, **look: Any) -> None:
        """Write a title above the left edge of a panel."""
        left, bottom = self.places[panel]
        self.write(left, bottom + self.size[1] + 0.04, text, style.TEXT_SIZE, **{"va": "bottom", "ha": "left", **look})

    def _lines(self, segments: Sequence[Sequence[tuple[float, float]]], colour: str, width: float) -> None:
        lines = LineCollection(segments, colors=colour, linewidths=width, capstyle="projecting", zorder=0.5)
        self.ax.add_collection(lines, autolim=False)

    def write(self, x: float, y: float, text: str, size: float, **look: Any) -> None:
        """Write a text at a place of the page; a formula in it is drawn as one only with `parse_math`."""
        self.ax.text(x, y, text, size=size, **{"color": style.INK, "parse_math": False, **look})


def lowest(panels: Sequence[int], columns: int) -> list[int]:
    """Return the lowest of these panels of each column."""
    return sorted({panel % columns: panel for panel in sorted(panels)}.values())


def place(
    inside: float,
    places: Sequence[tuple[float, float]],
    size: tuple[float, float],
    x: tuple[np.ndarray, int],
    scales: Sequence[Scale],
    pad: float = PAD,
    air: float | None = None,
    **page: Any,
) -> Tiles:
    """Return a page with `inside` inches of height for panels, of which nothing is drawn yet.

    Args:
        inside: inches.
        places: the lower left corner of each panel, inches from that of the page without its caption.
        size: of each panel, inches.
        x: all values on the x axis, whole numbers, and about how many ticks it has.
        scales: the y axis of each column.
        pad: from the axes to their labels, inches.
        air: how far the x axis goes on beyond its values; by default a small part of its length.
        page: title, caption and handles, see `canvas.blank`.
    """
    sheet, _ = canvas.blank(inside, **page)
    ends = tuple(float(side) for side in sheet.get_size_inches())
    ax = sheet.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, ends[0]), ylim=(0, ends[1]))
    steps, most = x
    first, last = float(steps.min()), float(steps.max())
    air = air or EDGES * (last - first) or 0.5
    ticks = np.asarray(MaxNLocator(nbins=most, integer=True, min_n_ticks=1).tick_values(first, last), dtype=float)
    ticks = ticks[(first - air <= ticks) & (ticks <= last + air)]
    moved = [(left, sheet.foot + bottom) for left, bottom in places]
    return Tiles(sheet, ax, moved, size, ticks, (first - air, last + air), scales, pad)


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

    All panels have the same axes, which are labelled at the outer ones.

    Args:
        steps: all values on the x axis, whole numbers.
        scale: the y axis.
    """
    rows = math.ceil(len(titles) / COLUMNS)
    columns = math.ceil(len(titles) / rows)
    height = ROW_HEIGHT if rows > 2 else canvas.PANEL_HEIGHTS[rows]
    inside = ABOVE + rows * height + (rows - 1) * GAPS[0] + canvas.LABEL_HEIGHT
    width = (style.width() - LEFT - RIGHT - (columns - 1) * GAPS[1]) / columns
    places = [
        (LEFT + column * (width + GAPS[1]), canvas.LABEL_HEIGHT + (rows - 1 - row) * (height + GAPS[0]))
        for row, column in (divmod(place, columns) for place in range(len(titles)))
    ]
    look: dict[str, Any] = {"title": title, "caption": caption, "handles": handles}
    made = place(inside, places, (width, height), (steps, STEPS), [scale] * columns, **look)
    panels = range(len(titles))
    made.frame(panels)
    for panel, text in enumerate(titles):
        made.title(panel, text)
    made.number(lowest(panels, columns), panels[::columns])
    _names(made, xlabel, ylabel)
    return made


def _names(page: Tiles, xlabel: str, ylabel: str) -> None:
    """Write the names of both axes in the middle of the panels."""
    lefts, bottoms = zip(*page.places, strict=True)
    middle = (min(lefts) + max(lefts) + page.size[0]) / 2
    rise = (min(bottoms) + max(bottoms) + page.size[1]) / 2
    below = min(bottoms) - canvas.LABEL_HEIGHT + 0.04
    page.write(middle, below, xlabel, style.TEXT_SIZE, ha="center", va="bottom")
    look: dict[str, Any] = {"rotation": 90, "ha": "left", "va": "center", "parse_math": True}
    page.write(style.EDGE, rise, ylabel, style.TEXT_SIZE, **look)
