"""Registry of the figures: every module of `pipeline.plot.paper` called `figNN_name` or `tabN_name`.

Figures of the user's own are modules with such names, too, given by their dotted paths.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from pipeline.common.errors import plain
from pipeline.config.figures import FIGURE, NAME, is_module, module_problems, unknown_figure
from pipeline.plot import paper
from pipeline.plot.base import Figure


class UnknownFigure(ValueError):
    """Error for a figure that does not exist or cannot be imported; the message has the way out."""


class FailedFigure(ValueError):
    """Error for a figure whose code fails; the message has its name, the cause, and the line of the user's own code."""


@cache
def figures() -> dict[str, Figure]:
    """Return all built-in figures by name (the name of the module), in the order of names."""
    modules = sorted(module.name for module in pkgutil.iter_modules(paper.__path__))
    names = [name for name in modules if NAME.fullmatch(name)]
    return {name: importlib.import_module(f"{paper.__name__}.{name}").FIGURE for name in names}


def resolve(names: Sequence[str] | None) -> dict[str, Figure]:
    """Return the figures called `names`, each in full or by its number (`fig01`); all built-in ones without names.

    A name with dots is the module of a figure of the user's own, whose name is that of its file.

    Raises:
        UnknownFigure: if a name is unknown, with the nearest name and the whole list; if a module is no figure.
    """
    known = figures()
    if not names:
        return dict(known)
    spellings = {alias: name for name in known for alias in (name, name.split("_")[0])}
    modules = [name for name in names if is_module(name)]
    if found := module_problems(modules):
        raise UnknownFigure("; ".join(found))
    for name in names:
        if name not in spellings and name not in modules:
            raise UnknownFigure(f"no figure is named {name!r}; {unknown_figure(name)}")
    wanted = {spellings[name] for name in names if name in spellings}
    own = {module.rpartition(".")[2]: _imported(module) for module in modules}
    return {name: figure for name, figure in known.items() if name in wanted} | dict(sorted(own.items()))


def _imported(module: str) -> Figure:
    """Import the figure of a module. Raises UnknownFigure, with the cause, if that fails."""
    try:
        found = getattr(importlib.import_module(module), FIGURE)
    except Exception as error:  # whatever the user's own module raises
        raise UnknownFigure(f"{module} cannot be imported: {plain(error)}; correct it") from error
    if not isinstance(found, Figure):
        way = f"end it with {FIGURE} = Figure(select, draw)"
        raise UnknownFigure(f"{module}: {FIGURE} is no Figure of pipeline.plot.base; {way}")
    return found
