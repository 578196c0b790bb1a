"""Registry of the figures: every module of `pipeline.plot.paper` called `figNN_name` or `tabN_name`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Sequence
from functools import cache

from pipeline.plot import paper
from pipeline.plot.base import Figure


class UnknownFigure(ValueError):
    """Error for the name of a figure that does not exist; the message lists the figures that do."""


@cache
def figures() -> dict[str, Figure]:
    """Return all figures by name (the name of the module), in the order of names."""
    modules = sorted(module.name for module in pkgutil.iter_modules(paper.__path__))
    names = [name for name in modules if re.fullmatch(r"(fig\d\d|tab\d)_\w+", name)]
    return {name: importlib.import_module(f"{paper.__name__}.{name}").FIGURE for name in names}


def resolve(names: Sequence[str] | None) -> dict[str, Figure]:
    """Return the figures called `names`, each in full or by its number (`fig01`); all of them if there are no names.

    Raises:
        UnknownFigure: if a name is unknown; the message gives the nearest name and the whole list.
    """
    known = figures()
    if not names:
        return dict(known)
    spellings = {alias: name for name in known for alias in (name, name.split("_")[0])}
    for name in names:
        if name not in spellings:
            near = difflib.get_close_matches(name, spellings, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UnknownFigure(f"no figure is named {name!r}.{hint} Choose from: {', '.join(known)}.")
    wanted = {spellings[name] for name in names}
    return {name: figure for name, figure in known.items() if name in wanted}
