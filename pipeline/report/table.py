"""Tables as the page shows them: cells with a number to sort by, and a tint for their distance from dense."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

NONE = "–"  # text of a cell without a number


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the text shown.
        value: the number that its column is sorted by; None if there is no number.
        note: a second, smaller line.
        tone: its tint, from -1 (loss, far from dense) to 1 (gain); 0 for none.
        bar: the length of a bar under the text, from 0 to 1; None for no bar.
    """

    text: str
    value: float | None = None
    note: str = ""
    tone: float = 0.0
    bar: float | None = None


@dataclass(frozen=True)
class Column:
    """Head of a column; neighbours with the same `group` share a heading above them.

    `words` are aligned left, `prose` keeps its line breaks as well, `muted` is less prominent.
    """

    name: str
    note: str = ""
    group: str = ""
    words: bool = False
    prose: bool = False
    muted: bool = False


@dataclass(frozen=True)
class Body:
    """Rows that stay together when the table is sorted, below a heading if they have a name.

    Those that are `fixed` keep their order.
    """

    rows: tuple[tuple[Cell, ...], ...]
    name: str = ""
    fixed: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    caption: str
    columns: tuple[Column, ...]
    bodies: tuple[Body, ...]
    sortable: bool = True

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings above the columns, with the number of columns each spans; empty if no column has one."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(name for name, _ in spans) else []


def plain_table(caption: str, columns: Iterable[Column], rows: Iterable[tuple[Cell, ...]]) -> Table:
    """Return a table whose rows all belong together."""
    return Table(caption, tuple(columns), (Body(tuple(rows)),))


def number(value: float, form: str, *, tone: float = 0.0, note: str = "", bar: float | None = None) -> Cell:
    """Return a cell with a number in a format of `format()`; a dash if it is not finite."""
    if not math.isfinite(value):
        return Cell(NONE)
    return Cell(minus(format(value, form)), float(value), note, max(-1.0, min(1.0, tone)), bar)


def significant(value: float, *, tone: float = 0.0) -> Cell:
    """Return a cell with three significant digits, for values that span decades."""
    cell = number(value, "#.3g", tone=tone)
    return replace(cell, text=cell.text.rstrip("."))


def minus(text: str) -> str:
    """Return the text of a number with a typographic minus sign, and without negative zero."""
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text.replace("-", "−")


def with_error(value: float, error: float, form: str) -> str:
    """Return the text of a value and its standard error, if it has one."""
    text = minus(format(value, form))
    return f"{text} ± {format(error, form.lstrip('+'))}" if math.isfinite(error) else text


def with_interval(difference: float, low: float, high: float) -> str:
    """Return the text of a difference and the two ends of its interval, with signs."""
    return f"{minus(f'{difference:+.1f}')} [{minus(f'{low:+.1f}')}, {minus(f'{high:+.1f}')}]"
