"""Contract of a figure: it selects data from the tables and draws exactly that selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from pipeline.plot.table_block import Block
    from pipeline.tables.read import Tables

# How wide a picture is in print.
Span = Literal["column", "page"]


@dataclass(frozen=True)
class Selection:
    """Content of one figure: `data` becomes its CSV, `notes` become sentences of its caption."""

    title: str
    data: pd.DataFrame
    notes: tuple[str, ...] = field(default=())


def column_if_one(name: str) -> Callable[[pd.DataFrame], Span]:
    """Return the span of a figure with a panel for each value of a column of its data: a column for a single one."""
    return lambda data: "column" if data[name].nunique() == 1 else "page"


@dataclass(frozen=True)
class Figure:
    """One figure. To add one, write a module `figNN_name.py` (or `tabN_name.py`) that assigns it to `FIGURE`.

    The module may lie in a folder of the user's own: see docs/extending/figure.md.

    Attributes:
        select: reads the tables of one group of comparable jobs; raises `MissingData` if they do not suffice.
        draw: turns (data read back from the CSV, title, caption) into a canvas, looking at nothing else. Title and
            caption are empty for a paper.
        version: of a built-in figure: raise it when `draw` changes, so that finished files are drawn again.
        span: whether the picture is as wide as a column or as a page in print; a function, where it depends on the
            data.
        blocks: of a table, turns the same data into the blocks that `draw` shows, for LaTeX.
    """

    select: Callable[[Tables], Selection]
    draw: Callable[[pd.DataFrame, str, str], Canvas]
    version: int = 1
    span: Span | Callable[[pd.DataFrame], Span] = "page"
    blocks: Callable[[pd.DataFrame], Sequence[Block]] | None = None

    def span_of(self, data: pd.DataFrame) -> Span:
        """Return how wide the picture of these data is in print."""
        return self.span(data) if callable(self.span) else self.span
