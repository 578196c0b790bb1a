"""Numbers in a row as text."""

from __future__ import annotations

from collections.abc import Sequence


def in_runs(numbers: Sequence[int]) -> str:
    """Return ascending numbers as text, more than two in a row by the first and the last: "0, 2 to 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    said = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(said)
