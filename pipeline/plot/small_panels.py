"""Many small panels on one page, with one x label and one y label for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from pipeline.plot import canvas

COLUMNS = 6
ROW_HEIGHT = 0.92  # inches, where there are more than two rows
ABOVE, LEFT, RIGHT = 0.24, 0.76, 0.1  # inches around the panels, with their titles and the labels of the y axis
GAPS = (0.24, 0.12)  # between rows and between columns
TICKS = 4  # labels above one another in a small panel


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


def finish(sheet: Canvas, axes: np.ndarray, xlabel: str, ylabels: str | Sequence[str]) -> None:
    """Write tick labels on the outer panels, one x label for all, and one y label for all or for each row.

    Empty axes are removed and the layout is settled. A label for all panels is that of one panel, moved to the middle:
    so the layout leaves room for it.
    """
    canvas.outer_labels(axes, "", "")
    for ax in axes.flat:
        if not ax.axison and not ax.texts:
            ax.remove()
    firsts = [next((ax for ax in row if ax.axison), row[0]) for row in axes]
    firsts[-1].set_xlabel(xlabel)
    for ax, label in [(firsts[-1], ylabels)] if isinstance(ylabels, str) else zip(firsts, ylabels, strict=True):
        ax.set_ylabel(label)
    sheet.align_ylabels(firsts)
    canvas.settle(sheet)
    own, top = firsts[-1].get_position(), axes[0, 0].get_position().y1
    left, right = axes[-1, 0].get_position().x0, axes[0, -1].get_position().x1
    firsts[-1].xaxis.label.set_x(((left + right) / 2 - own.x0) / own.width)
    if isinstance(ylabels, str):
        firsts[-1].yaxis.label.set_y(((top + own.y0) / 2 - own.y0) / own.height)
