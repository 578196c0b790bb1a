"""Many small panels on one page, with one x label and one y label for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

from pipeline.plot import canvas, style

COLUMNS = 6
ROW_HEIGHT = 0.92  # inches, where there are more than two rows
MOST_TICKS = 5  # of the y axis of a small panel


def grid(count: int, *, title: str, caption: str, handles: Sequence[Artist]) -> tuple[Canvas, np.ndarray, list[Axes]]:
    """Return a page with `count` panels in rows of about equal length: canvas, all axes, and those for the panels.

    The array of all axes includes those after the last panel, switched off; `finish` removes them.
    """
    rows = math.ceil(count / COLUMNS)
    columns = math.ceil(count / rows)
    sheet, axes = canvas.page(
        rows,
        columns,
        title=title,
        caption=caption,
        handles=handles,
        gaps=(0.24, 0.12),
        margins=(0.76, 0.1),
        sharey="row",
        row_height=None if rows <= 2 else ROW_HEIGHT,
    )
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
        canvas.EDGE / width, (top.y1 + bottom.y0) / 2, ylabel,
        size=style.TEXT_SIZE, rotation=90, ha="left", va="center",
    )  # fmt: skip
    for ax in axes.flat:
        if not ax.axison and not ax.texts:
            ax.remove()
