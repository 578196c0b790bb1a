"""Command line: `python -m pipeline.report [outputs=DIR] [figures.style=paper] [--settings TEXT]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.schema import FiguresConfig
from pipeline.plot.command import status_of, table_parser
from pipeline.plot.drawing import cores
from pipeline.report.page import write


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and print its path; return 0 if it ran, 1 without tables, 2 for unknown settings."""
    parser = table_parser("pipeline.report", "Write the report, one HTML page.", "report", figures=True)
    options = parser.parse_args(arguments)
    return status_of(lambda: _write(options.outputs, options.settings, options.form), "cannot write the report")


def _write(outputs: Path, settings: str | None, form: FiguresConfig) -> int:
    print(f"report: {write(outputs, settings, form=form, processes=cores())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
