"""Page of a figure, sized in inches: title, legend, rows of panels, and the caption at the bottom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import LineStyleType

from pipeline.plot import style
from pipeline.plot.grid_layout import GridLayout
from pipeline.plot.legend import Legend
from pipeline.plot.wrapping import wrap

TITLE_HEIGHT, TITLE_LINE, CAPTION_LINE = 0.27, 0.16, 0.125
LEGEND_GAP = 0.06  # inches below the legend, and half of them above it
LABEL_HEIGHT = 0.42  # tick labels and x label below the lowest panels
PANEL_TITLE = 0.17  # above each panel, with the space to the panel above it
PANEL_HEIGHTS, LEAST_HEIGHT = {1: 2.1, 2: 1.85, 3: 1.5}, 1.3  # of panels, by the number of rows
TALLEST = 8.0  # inches: of all rows together, which leaves room for a legend and a caption on a page of print


class Sheet(Canvas):
    """A page: a matplotlib figure that knows how many inches title and caption take at its top and bottom."""

    head = 0.0
    foot = 0.0


def page(
    rows: int,
    columns: int,
    *,
    title: str,
    caption: str,
    handles: Sequence[Artist] = (),
    sharey: Literal["row", "none"] = "none",
    sharex: Literal["col", "none"] = "col",
    row_height: float | None = None,
    height_ratios: Sequence[float] | None = None,
    width_ratios: Sequence[float] | None = None,
) -> tuple[Sheet, np.ndarray]:
    """Return a canvas with `rows` x `columns` panels, and the array of their axes.

    Title and caption are left out of a figure for print, which has them in files beside it. `settle` lays the panels
    out with room for their labels, for whatever needs to know where panels are.

    Args:
        handles: entries of the one legend of the page.
        row_height: height of a panel, inches; by default it follows from the number of rows.
        height_ratios: of the rows to one another.
        width_ratios: of the columns to one another.
    """
    row_height = row_height or panel_height(rows)
    inside = rows * (row_height + PANEL_TITLE) + LABEL_HEIGHT
    sheet, engine = blank(inside, title=title, caption=caption, handles=handles)
    axes = sheet.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=sharex,
        sharey=sharey,
        height_ratios=height_ratios,
        width_ratios=width_ratios,
    )
    sheet.set_layout_engine(engine)
    return sheet, axes


def panel_height(rows: int) -> float:
    """Return the height of each of so many rows of panels, in inches."""
    room = (TALLEST - LABEL_HEIGHT) / rows - PANEL_TITLE
    return min(PANEL_HEIGHTS.get(rows, LEAST_HEIGHT), room)


def blank(inside: float, *, title: str, caption: str, handles: Sequence[Artist] = ()) -> tuple[Sheet, GridLayout]:
    """Return a canvas with title, legend and caption around `inside` inches of height, and the engine for its panels.

    Without the engine, whatever is drawn has to keep clear of `head` and `foot` and of the legend by itself.
    """
    heading, lines = wrap(title, style.TITLE_SIZE, bold=True), wrap(caption)
    width = style.width()
    head = TITLE_HEIGHT + TITLE_LINE * (len(heading) - 1) if heading else 0.0
    foot = CAPTION_LINE * len(lines) + 0.1 if lines else 0.0
    legend = Legend.of(handles) if handles else None
    height = head + inside + foot + (legend.height + 2 * LEGEND_GAP if legend else 0.0)
    sheet = Sheet(figsize=(width, height))
    sheet.head, sheet.foot = head, foot
    if legend is not None:
        legend.draw(sheet, height - head - LEGEND_GAP / 2)
    if heading:
        big: dict[str, Any] = {"size": style.TITLE_SIZE, "weight": "bold", "va": "top", "parse_math": False}
        sheet.text(style.EDGE / width, 1 - 0.07 / height, "\n".join(heading), **big)
    if lines:
        small: dict[str, Any] = {"size": style.SMALL_SIZE, "color": style.GREY, "va": "bottom"}
        sheet.text(style.EDGE / width, 0.06 / height, "\n".join(lines), parse_math=False, **small)
    return sheet, GridLayout(0.0, foot, width, inside)


def settle(sheet: Canvas) -> None:
    """Lay the page out, once: from here on every panel stays where it is."""
    if (engine := sheet.get_layout_engine()) is not None:
        engine.execute(sheet)
        sheet.set_layout_engine(None)  # "none" would have every file drawn twice


def panel_title(ax: Axes, text: str, colour: str = style.INK) -> None:
    """Write a short title above the left edge of a panel."""
    ax.set_title(text, loc="left", pad=3, size=style.TEXT_SIZE, color=colour)


def empty_panel(ax: Axes, text: str) -> None:
    """Replace the empty frame of a panel with the reason why it shows nothing."""
    ax.set_axis_off()
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        size=style.SMALL_SIZE,
        color=style.GREY,
    )


def outer_labels(axes: np.ndarray, xlabel: str, ylabels: str | Sequence[str]) -> None:
    """Label the lowest panel of each column, and the first panel of each row (or all, given a label each).

    Panels without data are skipped: the next panel shows the labels in their place.
    """
    for column in axes.T:
        for ax in [ax for ax in column if ax.axison][-1:]:
            ax.set_xlabel(xlabel)
            ax.tick_params(labelbottom=True)
    for row in axes:
        first = next((ax for ax in row if ax.axison), None)
        pairs = [(first, ylabels)] if isinstance(ylabels, str) else zip(row, ylabels, strict=True)
        for ax, label in pairs:
            if ax is not None and ax.axison:
                ax.set_ylabel(label)
                ax.tick_params(labelleft=True)


def line_handle(
    label: str, colour: str, line: LineStyleType = "-", marker: str = "", width: float = style.LINE
) -> Line2D:
    """Return a legend entry for a line."""
    return Line2D([], [], color=colour, linestyle=line, linewidth=width, marker=marker, markersize=4, label=label)


def statistic_handles(line: str = "median over prompts", band: str = "quartiles") -> list[Any]:
    """Return legend entries that say what lines and bands are."""
    return [line_handle(line, style.GREY), Patch(color=style.GREY, alpha=style.BAND_ALPHA, linewidth=0, label=band)]


def error_handle(label: str, *, upright: bool = True) -> Line2D:
    """Return a legend entry that says what error bars are."""
    handle = line_handle(label, style.GREY, "", "|" if upright else "_")
    handle.set_markersize(8)
    return handle


def line_and_band(
    ax: Axes,
    x: pd.Series,
    rows: pd.DataFrame,
    colour: str,
    line: LineStyleType = "-",
    crowd: int = 1,
    width: float = style.LINE,
) -> None:
    """Draw the median and the quartiles of aggregated rows over `x`; the band is fainter if many (`crowd`) overlap."""
    alpha = style.BAND_ALPHA * min(1.0, 3 / crowd)
    ax.fill_between(x, rows["low"], rows["high"], color=colour, alpha=alpha, linewidth=0)
    marker = "o" if len(rows) == 1 else ""
    ax.plot(x, rows["median"], color=colour, linestyle=line, linewidth=width, marker=marker, markersize=3)
