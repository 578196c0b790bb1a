"""Options of the configuration groups, and suggestions for words that are not among them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.config.search_path import CONF, folders

PACKAGE = Path(__file__).resolve().parents[1]
# Least similarity of a word to suggest: a slip of the finger or two, not another word.
_NEAR = 0.65
# Fewest letters that tell which word begins with them.
_LEAST_START = 3
_PARTS = re.compile(r"[_.]")


def choices_of(group: str) -> list[str]:
    """Return the options of a config group, in the project's configuration and in folders of the user's own."""
    return list(_files(group, folders()))


def file_of(group: str, name: str) -> Path | None:
    """Return the YAML file of a choice; None if there is none."""
    return _files(group, folders()).get(name)


def read_choice(group: str, name: str) -> Mapping[str, Any]:
    """Return the values in a choice's YAML file, and in those that it inherits from.

    Raises OSError, yaml.YAMLError, and ValueError if it inherits from a choice that does not exist.
    """
    return _read(group, name, folders())


@cache
def _files(group: str, where: tuple[Path, ...]) -> dict[str, Path]:
    """Return the file of each option. The project's own come last, since Hydra takes them before all others."""
    found = {path.stem: path for folder in reversed(where) for path in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


@cache
def _read(group: str, name: str, where: tuple[Path, ...]) -> Mapping[str, Any]:
    path = _files(group, where).get(name, CONF / group / f"{name}.yaml")
    own = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    values: dict[str, Any] = {}
    for parent in own.pop("defaults", ()):
        # A default that is not a name chooses from another group.
        if isinstance(parent, str) and parent != "_self_":
            if parent not in _files(group, where):
                raise ValueError(no_default(path, group, parent))
            values |= _read(group, parent, where)
    return values | own


def no_default(path: Path, group: str, name: str) -> str:
    """Return the sentence about a file whose ``defaults`` name a choice that does not exist."""
    return f"{path}: its defaults name {name}, which {group} does not have; {nearest(name, choices_of(group))}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean x?`` for a known word like this one, and the list of known words.

    One is like it if few letters differ, if this word is a part of it, or if it alone begins with this word.
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=_NEAR)
    close = close or [one for one in known if word in _PARTS.split(one)]
    if not close and len(word) >= _LEAST_START:
        longer = [one for one in known if one.startswith(word)]
        close = longer if len(longer) == 1 else []
    return (f"did you mean {close[0]}? " if close else "") + f"choose from {', '.join(known)}"


def figure_names() -> list[str]:
    """Return the full names of all figures and tables without importing the code that draws them."""
    folder = PACKAGE / "plot" / "paper"
    return sorted(path.stem for kind in ("fig[0-9][0-9]_*.py", "tab[0-9]_*.py") for path in folder.glob(kind))
