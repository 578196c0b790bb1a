"""Blocks of a table: columns in inches, and rows of cells below one header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        spanner: a heading over the columns from index `first` on.
        pad: inches above and below the text of a row.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    spanner: str = ""
    first: int = 0
    pad: float = 0.045

    @property
    def edges(self) -> list[tuple[float, float]]:
        """Left and right edges of the columns, in inches from the left edge of the page."""
        edges, left = [], style.EDGE
        for column in self.columns:
            edges.append((left, left + column.width))
            left += column.width + GAP
        return edges
