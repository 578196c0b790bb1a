"""Output for people: progress bars, log lines, tables and sentences that fit the terminal."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from pipeline.common.heartbeat import bars_are_seen, counted, step
from pipeline.common.steps import reported

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]
# Characters per line where the output is not a terminal: of tables to search in, and of what is read from top to end.
WIDE, NARROW = 160, 80
# Colours of what went wrong, and of what is worth a look.
BAD, ODD = "red", "yellow"
_CODES = {BAD: 31, ODD: 33}
# Least width to which the text of a column is folded, and limits for a word in the head of a column of numbers.
_LEAST_TEXT, _LEAST_HEAD, _MOST_HEAD = 16, 8, 20
_GAP = 2
# A number keeps its unit, and an interval its limits, on one line.
_TOGETHER = re.compile(r"(?<=\d) (?=%|s\b|min\b|h\b|GiB\b)|(?<=\d,) (?=-?\d+\])|(?<=\d) (?=±)|(?<=±) (?=\d)")
_HARD = "\N{NO-BREAK SPACE}"


def progress(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """Return the items behind a progress bar on a terminal; elsewhere `pipeline.common.heartbeat` counts them."""
    if bars_are_seen():
        bar = tqdm(items, desc=f"  {what}", total=total, leave=False, dynamic_ncols=True)
        return reported(bar, what, total)
    return reported(counted(items, what, total), what, total)


@contextmanager
def advancing(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Give a function for the block that notes so many turns of a loop as done, shown as `progress` shows them."""
    if not bars_are_seen():
        with step(what, total) as advance:
            yield advance
        return
    with tqdm(desc=f"  {what}", total=total, leave=False, dynamic_ncols=True) as bar:
        yield bar.update


def columns_here(elsewhere: int = NARROW) -> int:
    """Return the width of the terminal or of ``COLUMNS``; ``elsewhere`` without both."""
    return shutil.get_terminal_size(fallback=(elsewhere, 24)).columns


def wrapped(text: str, indent: str = "", hang: str | None = None) -> str:
    """Return text in lines of the terminal's width. Numbers, with their units and intervals, stay on one line."""
    following = f"{indent}  " if hang is None else hang
    lines = textwrap.wrap(
        _TOGETHER.sub(_HARD, text),
        columns_here(),
        initial_indent=indent,
        subsequent_indent=following,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace(_HARD, " ")


def painted(text: str, colour: str, stream: TextIO) -> str:
    """Return text in a colour if the stream is a terminal that takes it and ``NO_COLOR`` is not set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{_CODES[colour]}m{text}\033[0m"


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    note: str = "",
    elsewhere: int = WIDE,
    colours: Mapping[tuple[int, int], str] | None = None,
) -> None:
    """Print a table, with text aligned to the left and numbers to the right.

    Where it is too wide, long texts are folded; where that is not enough, further columns come in blocks below, each
    with the first column. Numbers are never broken. ``colours`` are those of cells, by row and column.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(row[at][:1] in "0123456789+-–" for row in cells if row[at]) for at in range(len(columns))]
    width = columns_here(elsewhere)
    heads = [_head(name, [row[at] for row in cells], numeric[at]) for at, name in enumerate(columns)]
    folded = _fold(heads, cells, numeric, width)
    widths = [_widest(heads, folded, at) for at in range(len(heads))]
    console = Console(width=width, markup=False, highlight=False)
    if title:
        console.print(Text(title, "bold"), soft_wrap=True)
    for block in _blocks(widths, width):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
        for at in block:
            table.add_column(Text(heads[at]), justify="right" if numeric[at] else "left", no_wrap=True, overflow="crop")
        for place, row in enumerate(folded):
            table.add_row(*(Text(row[at], (colours or {}).get((place, at), "")) for at in block))
        console.print(table)
    if note:
        print("\n".join(wrapped(line, hang="  ") for line in note.splitlines()))


def _head(name: str, cells: Sequence[str], numeric: bool) -> str:
    """Return a column's name, over several lines where it is wider than the numbers below it."""
    if not numeric:
        return name
    word = min(max(map(cell_len, name.split()), default=0), _MOST_HEAD)
    return _folded(name, max([_LEAST_HEAD, word, *map(cell_len, cells)]))


def _fold(heads: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], width: int) -> list[list[str]]:
    """Return the cells with the widest texts folded as far as the table is too wide."""
    folded = [[*row] for row in cells]
    words = [at for at in range(len(heads)) if not numeric[at]]
    for at in sorted(words, key=lambda one: -_widest(heads, folded, one)):
        excess = sum(_widest(heads, folded, one) for one in range(len(heads))) + _GAP * (len(heads) - 1) - width
        room = max(_LEAST_TEXT, _width(heads[at]), _widest(heads, folded, at) - excess)
        if excess > 0:
            for row in folded:
                row[at] = _folded(row[at], room)
    return folded


def _widest(heads: Sequence[str], cells: Sequence[Sequence[str]], at: int) -> int:
    return max(map(_width, (heads[at], *(row[at] for row in cells))))


def _folded(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False)) or text


def _blocks(widths: Sequence[int], width: int) -> list[list[int]]:
    """Return the columns of each block, with the first one in all of them."""
    blocks = [[0]] if widths else []
    for at in range(1, len(widths)):
        taken = sum(widths[one] for one in blocks[-1]) + _GAP * len(blocks[-1])
        if taken + widths[at] > width and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(at)
    return blocks


def _width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


def plain_table(frame: Any) -> str:
    """Return a pandas frame as a Markdown table."""
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(_cell(value) for value in row)} |" for row in rows)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return str(value)


class BarSafeHandler(logging.Handler):
    """Writes log lines to standard error without tearing progress bars apart; failures and warnings in colour."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if record.levelno >= logging.WARNING:
            line = painted(line, BAD if record.levelno >= logging.ERROR else ODD, sys.stderr)
        # A terminal that has gone away is not a failure of the job.
        with suppress(BrokenPipeError):
            tqdm.write(line, file=sys.stderr)
