"""Command line: `python -m pipeline.figures [fig01 ...] [--outputs DIR] [--settings TEXT] [--force]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.causes import plain
from pipeline.figures.drawing import FigureResult, draw
from pipeline.figures.registry import UnknownFigure, figures, resolve
from pipeline.figures.table_files import DIAGNOSIS, NoTables
from pipeline.figures.tables import Choice, UnknownSettings, choose


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figures and list what became of each; 0 if it ran, 1 without tables, 2 for a wrong name."""
    options = _parser().parse_args(arguments)
    try:
        resolve(options.names)
        choice = choose(options.outputs, options.settings)
        results = draw(options.outputs, options.names, options.settings, force=options.force)
    except NoTables as error:
        print(error, file=sys.stderr)
        return 1
    except (UnknownFigure, UnknownSettings) as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:
        print(f"not everything can be drawn: {plain(error)}; {DIAGNOSIS}", file=sys.stderr)
        return 1
    print(_heading(choice))
    for result in results:
        print(_line(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.figures", description="Draw figures from the tables.")
    parser.add_argument("names", nargs="*", metavar="figure", help=f"default: all of {', '.join(figures())}")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the folder that holds tables/")
    parser.add_argument("--settings", metavar="TEXT", help="draw the jobs with these settings, not the newest job's")
    parser.add_argument("--force", action="store_true", help="draw again what is up to date")
    return parser


def _heading(choice: Choice) -> str:
    others = "; ".join(choice.others)
    hint = f"\nalso in the tables, to draw with --settings TEXT (any part of one): {others}" if others else ""
    return "\n".join(f"settings: {line}" for line in choice.lines) + hint


def _line(result: FigureResult) -> str:
    if result.missing:
        return f"{result.name}: missing, {result.missing}"
    state = "drawn" if result.drawn else "unchanged"
    return f"{result.name}: {state}, {result.paths[0].with_suffix('')}.{{pdf,png,csv}}"


if __name__ == "__main__":
    sys.exit(main())
