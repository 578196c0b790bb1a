"""The one legend of a page, placed by sums: matplotlib's own measures and places its parts whenever it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from pipeline.plot import style
from pipeline.plot.letters import text_width
from pipeline.plot.wrapping import wrap

EM = style.TEXT_SIZE / 72  # inches
LENGTH, PAD, APART = 2.4 * EM, 0.8 * EM, 1.6 * EM  # of a line or patch, from it to its name, and between columns
LINE, BETWEEN = 0.13, 0.137  # inches from a line of a name to the next one, and from an entry to the next one
MIDDLE, HEIGHT = 0.41 * EM, 0.7 * EM  # from the top of a name to the middle of its line, and the height of a patch


@dataclass(frozen=True)
class Legend:
    """Entries in columns that fit on the page, filled one after the other; names wider than the page are broken."""

    columns: list[list[tuple[Artist, str]]]

    @classmethod
    def of(cls, handles: Sequence[Artist]) -> Legend:
        """Return the legend of these lines and patches, each named by its label."""
        room = style.width() - 2 * style.EDGE - LENGTH - PAD
        names = [str(handle.get_label()) for handle in handles]
        names = [name if "$" in name else "\n".join(wrap(name, style.TEXT_SIZE, room)) for name in names]
        entries = list(zip(handles, names, strict=True))
        for count in range(len(entries), 0, -1):
            parts = np.array_split(np.arange(len(entries)), count)
            made = cls([[entries[place] for place in part] for part in parts])
            if sum(made._widths()) + (count - 1) * APART <= style.width() - 2 * style.EDGE:
                break
        return made

    @property
    def height(self) -> float:
        """How high it is, in inches."""
        return max(sum(map(_height, column)) for column in self.columns) - (BETWEEN - LINE)

    def _widths(self) -> list[float]:
        return [
            LENGTH + PAD + max(text_width(line, style.TEXT_SIZE) for _, name in column for line in name.split("\n"))
            for column in self.columns
        ]

    def draw(self, sheet: Canvas, top: float) -> None:
        """Draw it at the left edge of a page, with its upper edge `top` inches above the lower edge of the page."""
        left = style.EDGE
        for column, width in zip(self.columns, self._widths(), strict=True):
            at = top
            for handle, name in column:
                _draw(sheet, handle, left, at - MIDDLE)
                look: dict[str, Any] = {"size": style.TEXT_SIZE, "va": "top", "parse_math": "$" in name}
                sheet.text(left + LENGTH + PAD, at, name, transform=sheet.dpi_scale_trans, **look)
                at -= _height((handle, name))
            left += width + APART


def _height(entry: tuple[Artist, str]) -> float:
    """Return how far below an entry the next one is, in inches."""
    return BETWEEN + LINE * entry[1].count("\n")


def _draw(sheet: Canvas, handle: Artist, left: float, middle: float) -> None:
    """Draw what stands before a name, which looks like the handle; `left` and `middle` are inches on the page."""
    if isinstance(handle, Line2D):
        line = Line2D([], [])
        line.update_from(handle)
        # The marker stands in the middle of the line.
        line.set(xdata=[left, left + LENGTH / 2, left + LENGTH], ydata=[middle] * 3, markevery=[1])
        shown: Artist = line
    elif isinstance(handle, Patch):
        shown = Rectangle((left, middle - HEIGHT / 2), LENGTH, HEIGHT)
        shown.update_from(handle)
    else:
        raise TypeError(f"a legend shows lines and patches, not {type(handle).__name__}: give a Line2D or a Patch")
    shown.set_transform(sheet.dpi_scale_trans)
    sheet.add_artist(shown)
