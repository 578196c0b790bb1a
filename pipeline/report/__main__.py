"""Command line: `python -m pipeline.report [my_package.figures.fig30 ...] [outputs=DIR] [--settings TEXT]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.plot.command import status_of, table_parser
from pipeline.report.page import write


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and print its path; return 0 if it ran, 1 without tables, 2 for unknown settings."""
    parser = table_parser("pipeline.report", "Write the report, one HTML page.", "report")
    own = "dotted module of a figure of your own, to show beside the built-in ones"
    parser.add_argument("modules", nargs="*", metavar="figure", help=own)
    options = parser.parse_args(arguments)
    return status_of(lambda: _write(options.outputs, options.settings, options.modules), "cannot write the report")


def _write(outputs: Path, settings: str | None, modules: Sequence[str]) -> int:
    print(f"report: {write(outputs, settings, modules=modules)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
