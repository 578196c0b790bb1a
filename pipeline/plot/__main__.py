"""Command line: `python -m pipeline.plot [fig01 ...] [outputs=DIR] [figures.style=paper] [--settings TEXT]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.config.choices import figure_names
from pipeline.plot.command import status_of, table_parser
from pipeline.plot.drawing import FigureResult, cores, draw
from pipeline.tables.choice import Choice, choose

_NAMES = "by name or number"


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figures and print the outcome of each.

    Returns 0 if it ran, 1 without tables or if a figure of the user's own failed, 2 for an unknown name.
    """
    options = _parser().parse_args(arguments)
    return status_of(lambda: _draw(options), "cannot draw all figures")


def _draw(options: argparse.Namespace) -> int:
    how: dict[str, Any] = {"force": options.force, "form": options.form, "processes": cores()}
    results = draw(options.outputs, options.names, options.settings, **how)
    print(_heading(choose(options.outputs, options.settings)))
    for result in results:
        print(_line(result))
    return int(any(result.failed for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = table_parser("pipeline.plot", "Draw figures from the tables.", "draw", figures=True)
    parser.add_argument(
        "names", nargs="*", metavar="figure", help=f"{_NAMES}; default: all of {', '.join(figure_names())}"
    )
    parser.add_argument("--force", action="store_true", help="redraw figures that are up to date, too")
    return parser


def _heading(choice: Choice) -> str:
    others = "".join(f"\n  {line}" for line in choice.others)
    hint = (
        f"\nnot drawn: other settings; to draw one, give any part of it as --settings TEXT:{others}" if others else ""
    )
    return f"settings: {choice.line}{hint}"


def _line(result: FigureResult) -> str:
    if result.missing:
        return f"{result.name}: not drawn: {result.missing}"
    state = "drawn" if result.drawn else "unchanged"
    suffixes = ",".join(path.suffix[1:] for path in result.paths)
    return f"{result.name}: {state}, {result.paths[0].with_suffix('')}.{{{suffixes}}}"


if __name__ == "__main__":
    sys.exit(main())
