"""Page of a figure, sized in inches: title, legend, rows of panels, and the caption at the bottom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.typing import LineStyleType

from pipeline.plot import style

TITLE_HEIGHT, LEGEND_LINE, CAPTION_LINE = 0.27, 0.19, 0.125
LABEL_HEIGHT = 0.42  # tick labels and x label below the lowest panels
PANEL_HEIGHTS, LEAST_HEIGHT = {1: 2.1, 2: 1.85, 3: 1.5}, 1.3  # of panels, by the number of rows
EDGE = 0.08  # inches between the text and the left and right edge of the page


def page(
    rows: int,
    columns: int,
    *,
    title: str,
    caption: str,
    handles: Sequence[Artist] = (),
    gaps: tuple[float, float] = (0.3, 0.5),
    margins: tuple[float, float] = (0.62, 0.12),
    sharey: Literal["row", "none"] = "none",
    sharex: Literal["col", "none"] = "col",
    legend_columns: int = 4,
    row_height: float | None = None,
) -> tuple[Canvas, np.ndarray]:
    """Return a canvas with `rows` x `columns` panels, and the array of their axes.

    Args:
        handles: entries of the one legend of the page.
        gaps: between rows and between columns, inches.
        margins: left and right, inches.
        row_height: height of a panel, inches; by default it follows from the number of rows.
    """
    lines, row_height = wrap(caption), row_height or PANEL_HEIGHTS.get(rows, LEAST_HEIGHT)
    legend_rows = math.ceil(len(handles) / legend_columns)
    top = TITLE_HEIGHT + LEGEND_LINE * legend_rows + 0.24
    bottom = LABEL_HEIGHT + CAPTION_LINE * len(lines) + 0.1
    height = top + rows * row_height + (rows - 1) * gaps[0] + bottom
    canvas = Canvas(figsize=(style.WIDTH, height))
    panel_width = (style.WIDTH - sum(margins) - (columns - 1) * gaps[1]) / columns
    axes = canvas.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=sharex,
        sharey=sharey,
        gridspec_kw={
            "left": margins[0] / style.WIDTH,
            "right": 1 - margins[1] / style.WIDTH,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "hspace": gaps[0] / row_height,
            "wspace": gaps[1] / panel_width,
        },
    )
    left = EDGE / style.WIDTH
    canvas.text(left, 1 - 0.07 / height, title, size=style.TITLE_SIZE, weight="bold", va="top")
    small: dict[str, Any] = {"size": style.SMALL_SIZE, "color": style.GREY, "va": "bottom"}
    canvas.text(left, 0.06 / height, "\n".join(lines), parse_math=False, **small)
    if handles:
        _legend(canvas, handles, legend_rows, 1 - TITLE_HEIGHT / height)
    sns.despine(fig=canvas)
    return canvas, axes


def _legend(canvas: Canvas, handles: Sequence[Artist], rows: int, top: float) -> None:
    """Draw the one legend of a page in `rows` rows, below `top`, a fraction of the height of the page."""
    canvas.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, top),
        ncols=math.ceil(len(handles) / rows),
        frameon=False,
        borderpad=0.2,
        handlelength=2.4,
        columnspacing=1.6,
        labelspacing=0.3,
    )


def wrap(caption: str) -> list[str]:
    """Break a caption into lines that fill the width of the page in its proportional font."""
    font, room = FontProperties(size=style.SMALL_SIZE), 72 * (style.WIDTH - 2 * EDGE)
    lines: list[str] = []
    for word in caption.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_to_path.get_text_width_height_descent(longer, font, ismath=False)[0] <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def label_room(labels: Iterable[str]) -> float:
    """Return the left margin, in inches, that these tick labels on the y axis of the first panels need."""
    return _widest(labels, style.SMALL_SIZE) + 0.16


def fitting_columns(handles: Sequence[Artist]) -> int:
    """Return how many entries of a legend fit on one line of the page."""
    beside = 5 * style.TEXT_SIZE / 72  # the line or patch before the text, and the space after it
    return max(
        1, int(style.WIDTH / (beside + _widest((str(handle.get_label()) for handle in handles), style.TEXT_SIZE)))
    )


def _widest(texts: Iterable[str], size: float) -> float:
    font = FontProperties(size=size)
    return max(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] for text in texts) / 72


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


def line_handle(label: str, colour: str, line: LineStyleType = "-", marker: str = "") -> Line2D:
    """Return a legend entry for a line."""
    return Line2D([], [], color=colour, linestyle=line, marker=marker, markersize=4, label=label)


def line_and_band(
    ax: Axes, x: pd.Series, rows: pd.DataFrame, colour: str, line: LineStyleType = "-", crowd: int = 1
) -> None:
    """Draw the mean and the band of aggregated rows over `x`; the band is fainter if many (`crowd`) overlap."""
    alpha = style.BAND_ALPHA * min(1.0, 3 / crowd)
    ax.fill_between(x, rows["low"], rows["high"], color=colour, alpha=alpha, linewidth=0)
    marker = "o" if len(rows) == 1 else ""
    ax.plot(x, rows["mean"], color=colour, linestyle=line, marker=marker, markersize=3)
