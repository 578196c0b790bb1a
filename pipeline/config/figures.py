"""Figures by name: the built-in ones, and those in a folder of the user's own. Nothing that draws is imported."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from pipeline.config.choices import figure_names, nearest
from pipeline.config.schema import FiguresConfig
from pipeline.config.search_path import CONF

# The name of a figure is that of its file.
NAME = re.compile(r"(fig\d\d|tab\d)_\w+")
# What a module of a figure assigns.
FIGURE = "FIGURE"
_CALLED = "figNN_name.py or tabN_name.py"


@cache
def by_default() -> FiguresConfig:
    """Return the settings of figures that ``conf/config.yaml`` has, for commands that Hydra does not compose."""
    return FiguresConfig(**yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["figures"])


def number_of(name: str) -> str:
    """Return the number of a figure, such as ``fig04``, from its name."""
    return name.partition("_")[0]


def supplement_of(name: str) -> str:
    """Return what a built-in figure adds to another of the same number: ``panels`` of ``fig14_layers_kl_panels``.

    Empty for a figure that is no supplement, such as ``fig14_layers_kl``.
    """
    whole = next((other for other in figure_names() if name.startswith(f"{other}_")), name)
    return name.removeprefix(whole).strip("_").replace("_", " ")


def files_of(folder: str | None) -> dict[str, Path]:
    """Return the files of the figures in a folder of the user's own, by name."""
    files = sorted(Path(folder).expanduser().glob("*.py")) if folder else []
    return {path.stem: path.absolute() for path in files if NAME.fullmatch(path.stem)}


def figure_problems(select: Sequence[str] | None, include: str | None) -> list[str]:
    """Return sentences about figures that do not exist, and about files of a folder that are no figures."""
    sources = [problem for path in files_of(include).values() if (problem := _source_problem(path))]
    return name_problems(select, include) or [f"figures.include: {problem}" for problem in sources]


def name_problems(select: Sequence[str] | None, include: str | None) -> list[str]:
    """Return sentences about figures that do not exist, and about a folder without figures or with taken numbers."""
    found = [f"figures.include: {problem}" for problem in _folder_problems(include)]
    if found:
        return found
    names = [*figure_names(), *files_of(include)]
    spellings = [*dict.fromkeys(number_of(name) for name in names), *names]
    if select is not None and not select:
        return [f"figures.select is empty; choose from {', '.join(spellings)}"]
    absent = [name for name in select or () if name not in spellings]
    return [f"figures.select: {name} does not exist; {nearest(name, spellings)}" for name in absent]


def _folder_problems(include: str | None) -> list[str]:
    if include is None:
        return []
    folder, files = Path(include).expanduser(), files_of(include)
    if not folder.is_dir():
        return [f"there is no folder {include}; give the one that holds your figures"]
    if misnamed := [path for path in sorted(folder.glob("*.py")) if path.stem not in files and _assigns_figure(path)]:
        return [f"{path.absolute()} assigns {FIGURE}, but is not called {_CALLED}; rename it" for path in misnamed]
    if not files:
        return [f"{include} holds no figure; a figure is a file called {_CALLED}"]
    builtin = {number_of(name) for name in figure_names()}
    numbers = Counter(number_of(name) for name in files)
    found = [
        f"{path}: {number_of(name)} is the number of a built-in figure; give the file another, such as fig99"
        for name, path in files.items()
        if number_of(name) in builtin
    ]
    found += [
        f"{', '.join(str(path) for name, path in files.items() if number_of(name) == number)} are all {number}; "
        "give each figure a number of its own"
        for number, count in numbers.items()
        if count > 1 and number not in builtin
    ]
    return found


def _source_problem(path: Path) -> str | None:
    try:
        if FIGURE in _assigned(path):
            return None
    except (OSError, SyntaxError, ValueError) as error:
        return f"{path} cannot be read as Python ({error}); correct it"
    return f"{path} assigns nothing to {FIGURE}; end it with {FIGURE} = Figure(select, draw) of pipeline.plot.base"


def _assigns_figure(path: Path) -> bool:
    """Return whether a file assigns a figure; one that cannot be read as Python does not."""
    try:
        return FIGURE in _assigned(path)
    except (OSError, SyntaxError, ValueError):
        return False


def _assigned(path: Path) -> set[str]:
    """Return the names that a Python file assigns at its top. Raises OSError, SyntaxError or ValueError."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [
        target for node in assigned for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {target.id for target in targets if isinstance(target, ast.Name)}
