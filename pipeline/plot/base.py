"""Contract of a figure: it selects data from the tables and draws exactly that selection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from pipeline.tables.read import Tables


@dataclass(frozen=True)
class Selection:
    """Content of one figure: `data` becomes its CSV, `notes` become sentences of its caption."""

    title: str
    data: pd.DataFrame
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Figure:
    """One figure. To add one, write a module `figNN_name.py` (or `tabN_name.py`) that assigns it to `FIGURE`.

    The module may lie in a package of the user's own: see docs/extending/figure.md.

    Attributes:
        select: reads the tables of one group of comparable jobs; raises `MissingData` if they do not suffice.
        draw: turns (data read back from the CSV, title, caption) into a canvas, looking at nothing else.
        version: raise it when `draw` changes, so that finished files are drawn again.
    """

    select: Callable[[Tables], Selection]
    draw: Callable[[pd.DataFrame, str, str], Canvas]
    version: int = 1
