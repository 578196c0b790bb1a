"""Rows of JSON-lines files, with errors that name the line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, AnyStr

# Characters or bytes of a line. A compressed file of a few kilobytes can hold a line that fills the memory.
LONGEST = 2**26


def rows_of_lines(lines: IO[AnyStr], path: Path, example: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the JSON object of each line of the open file ``lines`` that is not blank.

    Raises ValueError for a line that is not a JSON object, and for one of more than ``LONGEST`` characters. ``example``
    is a valid line for the error to show.
    """
    for number in itertools.count(1):
        line = lines.readline(LONGEST + 1)
        if not line:
            return
        where = f"{path} line {number}"
        if len(line) > LONGEST:
            raise ValueError(f"{where} is longer than {LONGEST} characters; every line must be one JSON object")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            # The decoder's own sentence would count lines again.
            reason = getattr(error, "msg", None) or getattr(error, "reason", str(error))
            raise ValueError(f"{where} is not valid JSON ({reason}); every line must be one JSON object") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is not a JSON object; write lines such as {example}")
        yield where, row
