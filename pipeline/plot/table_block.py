"""Blocks of a table: columns in inches, and rows of cells below one header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.plot import style
from pipeline.plot.cell_text import Cell

GAP = 0.12  # inches between columns


def room() -> float:
    """Return the width of a row in inches."""
    return style.width() - 2 * style.EDGE


@dataclass(frozen=True)
class Column:
    """Column of `width` inches; numbers, in one colour, are right-aligned."""

    header: str
    width: float
    right: bool = False


@dataclass(frozen=True)
class Block:
    """Rows under one header.

    Attributes:
        spanners: headings over several columns, by the index of the first; each is over the columns up to the next.
        pad: inches above and below the text of a row.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    spanners: Mapping[int, str] = field(default_factory=dict)
    pad: float = 0.045

    @property
    def spans(self) -> list[tuple[str, int, int]]:
        """The headings over several columns, with the index of the first and of the last column of each."""
        firsts = sorted(self.spanners)
        lasts = [first - 1 for first in [*firsts[1:], len(self.columns)]]
        return [(self.spanners[first], first, last) for first, last in zip(firsts, lasts, strict=False)]

    @property
    def edges(self) -> list[tuple[float, float]]:
        """Left and right edges of the columns, in inches from the left edge of the page."""
        edges, left = [], style.EDGE
        for column in self.columns:
            edges.append((left, left + column.width))
            left += column.width + GAP
        return edges
