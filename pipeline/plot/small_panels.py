"""Many small panels on one page, with one x label and one y label for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

from pipeline.plot import canvas, style

COLUMNS = 6
ROW_HEIGHT = 0.92  # inches, where there are more than two rows
ABOVE, LEFT, RIGHT = 0.24, 0.76, 0.1  # inches around the panels, with their titles and the labels of the y axis
GAPS = (0.24, 0.12)  # between rows and between columns
MOST_TICKS = 5  # of the y axis of a small panel


def grid(
    count: int, *, title: str, caption: str, handles: Sequence[Artist], columns: int = COLUMNS
) -> tuple[Canvas, np.ndarray, list[Axes]]:
    """Return a page with `count` panels in rows of about equal length: canvas, all axes, and those for the panels.

    The array of all axes includes those after the last panel, switched off; `finish` removes them. As all panels have
    the same axes, their places are known; constrained layout would take seconds to find them.
    """
    rows = math.ceil(count / columns)
    columns = math.ceil(count / rows)
    row_height = ROW_HEIGHT if rows > 2 else canvas.PANEL_HEIGHTS[rows]
    inside = ABOVE + rows * row_height + (rows - 1) * GAPS[0] + canvas.LABEL_HEIGHT
    sheet, _ = canvas.blank(inside, title=title, caption=caption, handles=handles)
    width, height = sheet.get_size_inches()
    bottom = sheet.foot + canvas.LABEL_HEIGHT
    places = {
        "left": LEFT / width,
        "right": 1 - RIGHT / width,
        "bottom": bottom / height,
        "top": (bottom + rows * row_height + (rows - 1) * GAPS[0]) / height,
        "hspace": GAPS[0] / row_height,
        "wspace": GAPS[1] * columns / (width - LEFT - RIGHT - (columns - 1) * GAPS[1]),
    }
    axes = sheet.subplots(rows, columns, squeeze=False, sharex="col", sharey="row", gridspec_kw=places)
    sns.despine(fig=sheet)
    for spare in axes.flat[count:]:
        spare.set_axis_off()
    return sheet, axes, list(axes.flat[:count])


def few_steps(panels: Iterable[Axes]) -> None:
    """Put ticks of the x axis at a few whole numbers, for narrow panels."""
    for ax in panels:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))


def few_decades(panels: Iterable[Axes]) -> None:
    """Keep only zero and the powers of ten of many ticks of a decade axis, for low panels."""
    for ax in panels:
        formatter = ax.yaxis.get_major_formatter()
        assert isinstance(formatter, FixedFormatter)
        ticks = dict(zip(ax.get_yticks(), formatter.seq, strict=True))
        powers = {value: label for value, label in ticks.items() if value == 0 or _is_power(value)}
        if len(ticks) > MOST_TICKS and len(powers) > 1:
            ax.yaxis.set_major_locator(FixedLocator(list(powers)))
            ax.yaxis.set_major_formatter(FixedFormatter(list(powers.values())))


def _is_power(value: float) -> bool:
    return math.isclose(value, 10.0 ** round(math.log10(value)))


def finish(sheet: Canvas, axes: np.ndarray, xlabel: str, ylabel: str = "") -> None:
    """Write tick labels on the outer panels and one x and one y label for all of them, and remove empty axes."""
    canvas.outer_labels(axes, "", "")
    width, height = sheet.get_size_inches()
    top, bottom = axes[0, 0].get_position(), axes[-1, 0].get_position()
    middle = (bottom.x0 + axes[0, -1].get_position().x1) / 2
    sheet.text(middle, bottom.y0 - 0.22 / height, xlabel, size=style.TEXT_SIZE, ha="center", va="top")
    sheet.text(
        style.EDGE / width, (top.y1 + bottom.y0) / 2, ylabel,
        size=style.TEXT_SIZE, rotation=90, ha="left", va="center",
    )  # fmt: skip
    for ax in axes.flat:
        if not ax.axison and not ax.texts:
            ax.remove()
