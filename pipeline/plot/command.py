"""What the commands that read the tables share: which tables, and how they end where these say nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pipeline.common.arguments import Arguments
from pipeline.common.errors import plain
from pipeline.plot.registry import UnknownFigure
from pipeline.tables.choice import UnknownSettings
from pipeline.tables.stored import DIAGNOSIS, NoTables


def table_parser(prog: str, description: str, verb: str) -> Arguments:
    """A parser of ``outputs`` and ``--settings``; ``verb`` is what is done with the jobs of those settings."""
    parser = Arguments(prog=f"python -m {prog}", description=description)
    parser.add_argument("--settings", metavar="TEXT", help=f"{verb} the jobs with these settings, not the newest job's")
    return parser


def status_of(command: Callable[[], int], failure: str) -> int:
    """The exit status: the command's own; with a sentence 1 without usable tables, 2 for names that do not exist."""
    try:
        return command()
    except NoTables as error:
        print(error, file=sys.stderr)
        return 1
    except (UnknownFigure, UnknownSettings) as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:
        print(f"{failure}: {plain(error)}; {DIAGNOSIS}", file=sys.stderr)
        return 1
