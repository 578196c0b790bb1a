"""Registry of the figures: every module of `pipeline.plot.paper` called `figNN_name` or `tabN_name`.

Figures of the user's own are files with such names in a folder of theirs.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pipeline.common.errors import plain
from pipeline.config.figures import FIGURE, NAME, figure_problems, files_of, number_of
from pipeline.plot import paper
from pipeline.plot.base import Figure


class UnknownFigure(ValueError):
    """Error for a figure that does not exist or cannot be imported; the message has the way out."""


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
        UnknownFigure: if a name is unknown, with the nearest name and the whole list; if a file is no figure.
    """
    if found := figure_problems(names, include):
        raise UnknownFigure("; ".join(found))
    files = files_of(include)
    known = [*figures(), *files]
    wanted = [name for name in known if names is None or name in names or number_of(name) in names]
    return {name: _imported(files[name]) if name in files else figures()[name] for name in wanted}


def _imported(path: Path) -> Figure:
    """Import the figure of a file. Raises UnknownFigure, with the cause, if that fails."""
    try:
        spec = importlib.util.spec_from_file_location(f"figures_included.{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = getattr(module, FIGURE)
    except Exception as error:  # whatever the user's own file raises
        raise UnknownFigure(f"{path} cannot be imported: {plain(error)}; correct it") from error
    if not isinstance(found, Figure):
        way = f"end it with {FIGURE} = Figure(select, draw)"
        raise UnknownFigure(f"{path}: {FIGURE} is no Figure of pipeline.plot.base; {way}")
    return found
