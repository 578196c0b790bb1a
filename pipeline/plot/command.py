"""Shared parts of the commands that read the tables: the choice of tables, and the exit status if one fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_type_hints

import yaml  # type: ignore[import-untyped]

from pipeline.common.arguments import Arguments
from pipeline.common.errors import plain
from pipeline.config.choices import nearest
from pipeline.config.figures import by_default
from pipeline.config.schema import FiguresConfig
from pipeline.config.types import converted, misfits
from pipeline.plot.discovery import UnknownFigure
from pipeline.tables.choice import UnknownSettings
from pipeline.tables.stored import DIAGNOSIS, NoTables

_KEY, _NODE = "figures.", "figures="
_EPILOG = (
    "figures.style=paper draws for print, figures.include=DIR draws figures of your own, too; "
    "figures.column and figures.page are widths in inches."
)


def table_parser(prog: str, description: str, verb: str, *, figures: bool = False) -> Arguments:
    """Return a parser of ``outputs`` and ``--settings``; ``verb`` says what the command does with the jobs chosen.

    With ``figures``, it takes the form of figures, too.
    """
    kind = FigureArguments if figures else Arguments
    parser = kind(prog=f"python -m {prog}", description=description, epilog=_EPILOG if figures else None)
    parser.add_argument(
        "--settings", metavar="TEXT", help=f"{verb} the jobs with these settings instead of the newest job's"
    )
    return parser


class FigureArguments(Arguments):
    """A parser of the form of figures, too, written as for ``pipeline.main``: ``figures.style=paper``."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the arguments; the result has a ``form``."""
        given = list(sys.argv[1:] if args is None else args)
        words = [word for word in given if word.startswith((_KEY, _NODE)) and "=" in word]
        options, rest = super().parse_known_args([word for word in given if word not in words], namespace)
        try:
            options.form = _form(words)
        except ValueError as error:
            self.error(str(error))
        return options, rest


def _form(words: Sequence[str]) -> FiguresConfig:
    """Return the form of figures that ``figures.KEY=VALUE`` ask for. Raises ValueError for what no form has."""
    if whole := [word for word in words if word.startswith(_NODE)]:
        raise ValueError(f"figures is a group of keys: write {_KEY}select={whole[0].removeprefix(_NODE)}")
    given = dict(word.removeprefix(_KEY).split("=", 1) for word in words)
    kinds = get_type_hints(FiguresConfig, include_extras=True)
    if absent := [key for key in given if key not in kinds]:
        raise ValueError(f"figures.{absent[0]} is not a key; {nearest(absent[0], kinds)}")
    try:
        values = {key: converted(kinds[key], yaml.safe_load(value)) for key, value in given.items()}
    except yaml.YAMLError as error:
        raise ValueError(f"cannot read {' '.join(words)}: {' '.join(str(error).split())}") from None
    if wrong := [problem for key, value in values.items() for problem in misfits(f"figures.{key}", kinds[key], value)]:
        raise ValueError("; ".join(wrong))
    return replace(by_default(), **values)


def status_of(command: Callable[[], int], failure: str, *unknown: type[Exception]) -> int:
    """Run a command and return its exit status; print an error and return 2 for ``unknown`` names, 1 for any other."""
    names: tuple[type[Exception], ...] = (UnknownFigure, UnknownSettings, *unknown)
    try:
        return command()
    except NoTables as error:
        print(error, file=sys.stderr)
        return 1
    except names as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:
        print(f"{failure}: {plain(error)}; {DIAGNOSIS}", file=sys.stderr)
        return 1
