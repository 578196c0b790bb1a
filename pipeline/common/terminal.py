"""Output for people while a job runs: progress bars, log lines, closing tables."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from pipeline.common.steps import reported

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]


def progress(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """Return the items behind a progress bar on a terminal, and without one elsewhere."""
    bar = tqdm(items, desc=f"  {what}", total=total, leave=False, disable=None, dynamic_ncols=True)
    return reported(bar, what, total)


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> None:
    """Print a table, with text aligned to the left and numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold", caption=note or None, caption_justify="left")
    for index, column in enumerate(columns):
        numeric = all(row[index][:1] in "0123456789+-–" for row in cells if row[index])
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 160
    Console(width=width, soft_wrap=False).print(table)


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
    """Writes log lines to standard error without tearing progress bars apart."""

    def emit(self, record: logging.LogRecord) -> None:
        # A terminal that has gone away is not a failure of the job.
        with suppress(BrokenPipeError):
            tqdm.write(self.format(record), file=sys.stderr)
