"""Command line: `python -m pipeline.report [--outputs DIR] [--settings TEXT]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.causes import plain
from pipeline.figures.table_files import DIAGNOSIS, NoTables
from pipeline.figures.tables import UnknownSettings
from pipeline.report.page import write


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and print where it is; 0 if it ran, 1 without tables, 2 for settings that do not exist."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.report", description="Write the report, one HTML page.")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the folder that holds tables/")
    parser.add_argument("--settings", metavar="TEXT", help="report the jobs with these settings, not the newest job's")
    options = parser.parse_args(arguments)
    try:
        path = write(options.outputs, options.settings)
    except NoTables as error:
        print(error, file=sys.stderr)
        return 1
    except UnknownSettings as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:
        print(f"not everything can be shown: {plain(error)}; {DIAGNOSIS}", file=sys.stderr)
        return 1
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
