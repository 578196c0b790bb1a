"""Registry of the figures: every module of `pipeline.plot.paper` called `figNN_name` or `tabN_name`.

Figures of the user's own are files with such names in a folder of theirs.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from pipeline.config.figures import FIGURE, NAME, files_of, name_problems, number_of
from pipeline.plot import paper
from pipeline.plot.base import Figure


class UnknownFigure(ValueError):
    """Error for a figure that does not exist; the message has the way out."""


@cache
def figures() -> dict[str, Figure]:
    """Return all built-in figures by name (the name of the module), in the order of names."""
    modules = sorted(module.name for module in pkgutil.iter_modules(paper.__path__))
    names = [name for name in modules if NAME.fullmatch(name)]
    return {name: importlib.import_module(f"{paper.__name__}.{name}").FIGURE for name in names}


def resolve(names: Sequence[str] | None, include: str | None = None) -> dict[str, Figure]:
    """Return the figures called `names`, each in full or by its number (`fig01`); all of them without names.

    Args:
        include: a folder with files of the user's own figures, beside the built-in ones.

    Raises:
        UnknownFigure: if a name is unknown, with the nearest name and the whole list; if there is no such folder.
    """
    check_names(names, include)
    files = files_of(include)
    known = [*figures(), *files]
    wanted = [name for name in known if names is None or name in names or number_of(name) in names]
    return {name: _imported(files[name]) if name in files else figures()[name] for name in wanted}


def check_names(names: Sequence[str] | None, include: str | None = None) -> None:
    """Raise UnknownFigure as `resolve` does, without importing any figure."""
    if found := name_problems(names, include):
        raise UnknownFigure("; ".join(found))


def _imported(path: Path) -> Figure:
    """Return the figure of a file, whose version changes with the file.

    One that cannot be imported fails with the same error when it is used.
    """
    module = ModuleType(f"included_figures.{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        # Compiled anew: Python's cache would miss a change of the same length within a second.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        found = getattr(module, FIGURE, None)
        if not isinstance(found, Figure):
            raise TypeError(f"{FIGURE} is no Figure of pipeline.plot.base: end it with {FIGURE} = Figure(select, draw)")
        return replace(found, version=zlib.crc32(path.read_bytes()))
    except (Exception, SystemExit) as error:  # whatever the user's own file raises
        return _failing(error)


def _failing(error: BaseException) -> Figure:
    def fail(*_: object) -> NoReturn:
        raise error

    return Figure(fail, fail)
