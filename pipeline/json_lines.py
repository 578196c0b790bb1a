"""Rows of JSON-lines files, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def rows_of_lines(lines: Iterable[str | bytes], path: Path, example: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where it stands and what it says, for each line of ``path`` that is not blank.

    Raises ValueError for a line that is no JSON object; ``example`` shows what one looks like.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            # The decoder's own sentence would count lines again.
            reason = getattr(error, "msg", None) or getattr(error, "reason", str(error))
            raise ValueError(f"{where} is no JSON ({reason}); every line has to be one JSON object") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is no JSON object; write lines such as {example}")
        yield where, row
