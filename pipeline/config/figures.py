"""Figures by name: the built-in ones, and modules of the user's own. Nothing that draws is imported."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from collections import Counter
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from pipeline.config.choices import figure_names, nearest

# The name of a figure is that of its file.
NAME = re.compile(r"(fig\d\d|tab\d)_\w+")
# What a module of a figure assigns.
FIGURE = "FIGURE"


def is_module(name: str) -> bool:
    """Return whether a figure is given by the dotted path of its module, as those of the user's own are."""
    return "." in name


def unknown_figure(name: str) -> str:
    """Return what to write instead of a figure without a dotted path that is none of the built-in ones."""
    known = figure_names()
    if NAME.fullmatch(name) and number_of(name) not in map(number_of, known):
        return f"a figure of your own is named by the dotted path of its module, such as my_package.figures.{name}"
    close = difflib.get_close_matches(name, [*map(number_of, known), *known], n=1, cutoff=0.5)
    return f"{f'did you mean {close[0]}? ' if close else ''}choose from {', '.join(known)}"


def number_of(name: str) -> str:
    """Return the number of a figure, such as ``fig04``, from its name or the path of its module."""
    return name.rpartition(".")[2].partition("_")[0]


def module_problems(modules: Sequence[str]) -> list[str]:
    """Return sentences about modules of figures that are not there, are no figures, or take another one's number."""
    problems = {module: _problem(module) for module in modules}
    sound = [module for module, problem in problems.items() if problem is None]
    numbers = Counter(map(number_of, sound))
    return [problem for problem in problems.values() if problem] + [
        f"{', '.join(module for module in sound if number_of(module) == number)} are all {number}; give each figure a "
        "number of its own"
        for number, count in numbers.items()
        if count > 1
    ]


def _problem(module: str) -> str | None:
    parent, _, name = module.rpartition(".")
    if not all(part.isidentifier() for part in module.split(".")):
        return f"{module} is not the dotted path of a module, such as my_package.figures.fig30_mine"
    try:
        package, spec = _spec(parent), _spec(module)
    except Exception as error:  # whatever the user's own package raises
        return f"{module} cannot be found: importing {parent} fails ({type(error).__name__}: {error}); correct that"
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return f"there is no module {module}; {_near(module, package)}"
    if not NAME.fullmatch(name):
        return f"{module}: the file of a figure is called figNN_name.py or tabN_name.py; rename it"
    if number_of(name) in {number_of(known) for known in figure_names()}:
        return f"{module}: {number_of(name)} is the number of a built-in figure; give the file another, such as fig99"
    return _source_problem(module, Path(spec.origin))


def _spec(module: str) -> ModuleSpec | None:
    """Find a module by importing the packages above it, none of which need be there."""
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            return None
        raise


def _near(module: str, package: ModuleSpec | None) -> str:
    """Return where to look for a module that is not there."""
    if package is None:
        folder = module.partition(".")[0]
        return f"install its package, or add the folder that holds {folder}/ to PYTHONPATH"
    files = [path.stem for place in package.submodule_search_locations or () for path in Path(place).glob("*.py")]
    figures = [f"{package.name}.{file}" for file in files if NAME.fullmatch(file)]
    return nearest(module, figures) if figures else f"{package.name} holds no figure"


def _source_problem(module: str, path: Path) -> str | None:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        return f"{module} cannot be read as Python ({error}); correct {path}"
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [
        target for node in assigned for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    if any(isinstance(target, ast.Name) and target.id == FIGURE for target in targets):
        return None
    return f"{module} assigns nothing to {FIGURE}; end it with {FIGURE} = Figure(select, draw) of pipeline.plot.base"
