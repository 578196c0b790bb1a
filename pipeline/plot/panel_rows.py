"""Rows of panels, drawn as one, with the same x axis everywhere and a y axis of its own for each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.artist import Artist

from pipeline.plot import canvas, scales, style, tiles
from pipeline.plot.letters import text_width
from pipeline.plot.wrapping import wrap

LINE = 0.135  # inches: a line of text
GAP = 0.1  # inches between panels with their labels
PAD, BESIDE = 0.08, 0.05  # inches from an axis to its numbers, and from these to its label on the left
BELOW = 0.23  # inches from an axis to its label below
ABOVE = 0.04  # inches between a panel and its title


class Column(NamedTuple):
    """What panels below one another share: the y axis, its label and a title above them, both empty for none."""

    scale: tiles.Scale
    label: str = ""
    title: str = ""
    colour: str = style.INK  # of the title

    @property
    def numbers(self) -> float:
        """How wide the labels of ticks are, in inches."""
        return max((text_width(text, style.SMALL_SIZE) for text in self.scale.labels), default=0.0)


def panel_rows(
    columns: Sequence[Column],
    titles: Sequence[str],
    steps: np.ndarray,
    *,
    xlabel: str,
    title: str,
    caption: str,
    handles: Sequence[Artist],
    empty: Mapping[int, str],
    names: Sequence[str] = (),
    height: float | None = None,
    grid_of: Literal["both", "y"] = "both",
) -> tiles.Tiles:
    """Return a page of panels in reading order, with all but their curves drawn.

    The lowest panel of each column that shows something has the labels of the x axis.

    Args:
        columns: from left to right.
        titles: of all panels; empty for none. The first row has none if the columns have.
        steps: all values on the x axis, whole numbers.
        empty: why panels show nothing, by their number.
        names: of the rows, in place of labels of the first column.
        height: of a panel with its title, inches; by default it follows from the number of rows.
        grid_of: which axes have a grid.
    """
    rows = len(titles) // len(columns)
    height = height or canvas.panel_height(rows)
    inside = rows * (height + canvas.PANEL_TITLE) + canvas.LABEL_HEIGHT
    beside = [wrap(name, style.TEXT_SIZE, height) for name in names]
    lefts, width = _across(columns, max(map(len, beside), default=0))
    broken = ["\n".join(wrap(text, style.TEXT_SIZE, width)) for text in titles]
    above = [broken[start : start + len(columns)] for start in range(0, len(titles), len(columns))]
    above[0] += [column.title for column in columns]
    bottoms, high = _down(inside, above)
    places = [(left, bottom) for bottom in bottoms for left in lefts]
    look: dict[str, Any] = {"title": title, "caption": caption, "handles": handles}
    axes = [column.scale for column in columns]
    page = tiles.place(inside, places, (width, high), (steps, scales.TICKS), axes, PAD, **look)
    shown = [panel for panel in range(len(titles)) if panel not in empty]
    page.frame(shown, grid_of)
    last = tiles.lowest(shown, len(columns))
    page.number(last, shown)
    for panel, text in enumerate(broken):
        if text and panel in shown:
            page.title(panel, text)
    for place, column in enumerate(columns):
        if column.title:
            page.title(place, column.title, color=column.colour, parse_math=True)
    for panel, reason in empty.items():
        _excuse(page, panel, reason)
    _label(page, columns, shown, ["\n".join(lines) for lines in beside])
    for panel in last:
        left, bottom = page.places[panel]
        page.write(left + width / 2, bottom - BELOW, xlabel, style.TEXT_SIZE, ha="center", va="top")
    return page


def _across(columns: Sequence[Column], lines: int) -> tuple[list[float], float]:
    """Return the left edge of each column, and the width of a panel, in inches.

    Args:
        lines: of the names of rows.
    """
    rooms = []
    for place, column in enumerate(columns):
        words = lines if lines and not place else 1 if column.label else 0
        rooms.append((GAP if place else style.EDGE) + words * LINE + BESIDE * bool(words) + column.numbers + PAD)
    width = (style.width() - sum(rooms) - tiles.RIGHT) / len(columns)
    return [sum(rooms[: place + 1]) + place * width for place in range(len(columns))], width


def _down(inside: float, titles: Sequence[Sequence[str]]) -> tuple[list[float], float]:
    """Return the lower edge of each row of panels with these titles, and the height of a panel, in inches."""
    above = [max(ABOVE + LINE * (text.count("\n") + 1) if text else 0.0 for text in row) for row in titles]
    high = (inside - canvas.LABEL_HEIGHT - sum(above) - GAP * len(titles)) / len(titles)
    bottoms, top = [], inside - GAP / 2
    for room in above:
        bottoms.append(top - room - high)
        top = bottoms[-1] - GAP
    return bottoms, high


def _label(page: tiles.Tiles, columns: Sequence[Column], shown: Sequence[int], names: Sequence[str]) -> None:
    """Write the names of rows, or of the y axis beside each panel that has one."""
    look: dict[str, Any] = {"rotation": 90, "va": "center", "ha": "right"}
    for panel, (left, bottom) in enumerate(page.places):
        row, place = divmod(panel, len(columns))
        column, middle = columns[place], bottom + page.size[1] / 2
        if names and not place:
            page.write(style.EDGE, middle, names[row], style.TEXT_SIZE, **{**look, "ha": "left"})
        elif column.label and panel in shown:
            page.write(
                left - PAD - column.numbers - BESIDE, middle, column.label, style.TEXT_SIZE, parse_math=True, **look
            )


def _excuse(page: tiles.Tiles, panel: int, reason: str) -> None:
    """Write into a panel why it shows nothing."""
    (left, bottom), (width, high) = page.places[panel], page.size
    text = "\n".join(wrap(reason, style.SMALL_SIZE, width))
    look = {"ha": "center", "va": "center", "color": style.GREY}
    page.write(left + width / 2, bottom + high / 2, text, style.SMALL_SIZE, **look)
