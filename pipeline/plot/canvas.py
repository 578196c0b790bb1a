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
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path
from matplotlib.typing import LineStyleType

from pipeline.plot import style

TITLE_HEIGHT, LEGEND_LINE, CAPTION_LINE = 0.27, 0.19, 0.125
LABEL_HEIGHT = 0.42  # tick labels and x label below the lowest panels
PANEL_TITLE = 0.17  # above each panel, with the space to the panel above it
PANEL_HEIGHTS, LEAST_HEIGHT = {1: 2.1, 2: 1.85, 3: 1.5}, 1.3  # of panels, by the number of rows


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

    Title and caption are left out of a figure for print, which has them in files beside it. Panels leave room for
    labels by matplotlib's constrained layout: `settle` fixes it, for whatever needs to know where panels are.

    Args:
        handles: entries of the one legend of the page.
        row_height: height of a panel, inches; by default it follows from the number of rows.
        height_ratios: of the rows to one another.
        width_ratios: of the columns to one another.
    """
    row_height = row_height or PANEL_HEIGHTS.get(rows, LEAST_HEIGHT)
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
    sns.despine(fig=sheet)
    return sheet, axes


def blank(
    inside: float, *, title: str, caption: str, handles: Sequence[Artist] = ()
) -> tuple[Sheet, ConstrainedLayoutEngine]:
    """Return a canvas with title, legend and caption around `inside` inches of height, and the engine for its panels.

    Without the engine, whatever is drawn has to keep clear of `head` and `foot` and of the legend by itself.
    """
    lines = wrap(caption) if caption else []
    columns = fitting_columns(handles) if handles else 1
    legend_rows = math.ceil(len(handles) / columns)
    width = style.width()
    head = TITLE_HEIGHT if title else 0.0
    foot = CAPTION_LINE * len(lines) + 0.1 if lines else 0.0
    legend = LEGEND_LINE * legend_rows + (0.06 if legend_rows else 0.0)
    height = head + legend + inside + foot
    sheet = Sheet(figsize=(width, height))
    sheet.head, sheet.foot = head, foot
    if title:
        sheet.text(style.EDGE / width, 1 - 0.07 / height, title, size=style.TITLE_SIZE, weight="bold", va="top")
    if lines:
        small: dict[str, Any] = {"size": style.SMALL_SIZE, "color": style.GREY, "va": "bottom"}
        sheet.text(style.EDGE / width, 0.06 / height, "\n".join(lines), parse_math=False, **small)
    if handles:
        _legend(sheet, handles, legend_rows, 1 - head / height)
    room = (0.0, foot / height, 1.0, inside / height)
    return sheet, ConstrainedLayoutEngine(rect=room, w_pad=0.04, h_pad=0.04, wspace=0.03, hspace=0.03)


def settle(sheet: Canvas) -> None:
    """Lay the page out, once: from here on every panel stays where it is."""
    if (engine := sheet.get_layout_engine()) is not None:
        FigureCanvasAgg(sheet)
        engine.execute(sheet)
        sheet.set_layout_engine("none")


def _legend(sheet: Canvas, handles: Sequence[Artist], rows: int, top: float) -> None:
    """Draw the one legend of a page in `rows` rows, below `top`, a fraction of the height of the page."""
    legend = sheet.legend(
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
    legend.set_in_layout(False)


def wrap(caption: str) -> list[str]:
    """Break a caption into lines that fill the width of the page in its proportional font."""
    font, room = FontProperties(size=style.SMALL_SIZE), 72 * (style.width() - 2 * style.EDGE)
    lines: list[str] = []
    for word in caption.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_to_path.get_text_width_height_descent(longer, font, ismath=False)[0] <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def fitting_columns(handles: Sequence[Artist]) -> int:
    """Return how many entries of a legend fit on one line of the page."""
    beside = 5 * style.TEXT_SIZE / 72  # the line or patch before the text, and the space after it
    widest = _widest((str(handle.get_label()) for handle in handles), style.TEXT_SIZE)
    return max(1, int(style.width() / (beside + widest)))


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


def statistic_handles(line: str = "median over prompts", band: str = "quartiles") -> list[Any]:
    """Return legend entries that say what lines and bands are."""
    return [line_handle(line, style.GREY), Patch(color=style.GREY, alpha=style.BAND_ALPHA, linewidth=0, label=band)]


def line_and_band(
    ax: Axes, x: pd.Series, rows: pd.DataFrame, colour: str, line: LineStyleType = "-", crowd: int = 1
) -> None:
    """Draw the median and the quartiles of aggregated rows over `x`; the band is fainter if many (`crowd`) overlap."""
    alpha = style.BAND_ALPHA * min(1.0, 3 / crowd)
    ax.fill_between(x, rows["low"], rows["high"], color=colour, alpha=alpha, linewidth=0)
    marker = "o" if len(rows) == 1 else ""
    ax.plot(x, rows["median"], color=colour, linestyle=line, marker=marker, markersize=3)
