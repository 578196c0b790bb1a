"""Shared parts of the commands that read the tables: the choice of tables, and the exit status if one fails."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pipeline.common.arguments import Arguments
from pipeline.common.errors import plain
from pipeline.plot.discovery import FailedFigure, UnknownFigure
from pipeline.tables.choice import UnknownSettings
from pipeline.tables.stored import DIAGNOSIS, NoTables


def table_parser(prog: str, description: str, verb: str) -> Arguments:
    """Return a parser of ``outputs`` and ``--settings``; ``verb`` says what the command does with the jobs chosen."""
    parser = Arguments(prog=f"python -m {prog}", description=description)
    parser.add_argument(
        "--settings", metavar="TEXT", help=f"{verb} the jobs with these settings instead of the newest job's"
    )
    return parser


def status_of(command: Callable[[], int], failure: str) -> int:
    """Run a command and return its exit status; print an error and return 2 for unknown names, 1 for any other."""
    try:
        return command()
    except (NoTables, FailedFigure) as error:
        print(error, file=sys.stderr)
        return 1
    except (UnknownFigure, UnknownSettings) as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:
        print(f"{failure}: {plain(error)}; {DIAGNOSIS}", file=sys.stderr)
        return 1
