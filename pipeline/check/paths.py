"""Checks of the paths of one configuration: writing touches neither inputs nor anything that is not a result.

Links are followed before paths are compared. No file is opened here.
"""

from __future__ import annotations

import os
import pwd
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.choices import CONF, PACKAGE
from pipeline.config.schema import STORIES
from pipeline.evaluate.suites.retrieval import BUILT_IN

# Of a clone the top, of an installed package its own folder.
REPOSITORY = CONF.parent
# The source tree: nothing is written into these folders.
_SOURCES = (CONF, PACKAGE, REPOSITORY / ".git")
# Folders that are made, replaced and removed below outputs.
_MADE = ("store", "jobs", "runs", "tables", "figures", "report", "wandb")
# Keys of the paths that are written.
_WRITTEN = ("outputs", "export.path")
# This file marks a folder as one of our exports, which stay as they are.
FACTS = "pruning.json"
# Most bytes of a name and of a path on common file systems, and room for the longer name of a private copy.
_LONGEST_NAME, _LONGEST_PATH, _ROOM = 255, 3000, 60


@dataclass(frozen=True)
class Given:
    """A path as given for a key, and its real location."""

    key: str
    text: str

    @property
    def path(self) -> Path:
        return Path(self.text).expanduser().absolute()

    @property
    def real(self) -> Path:
        return Path(os.path.realpath(self.path))

    def __str__(self) -> str:
        return f"{self.key}={self.text}"


def impossible(plain: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each text that cannot be a path here and that no other check should look up."""
    found = [_malformed(given, 0) for given in _inputs(plain)] + [_malformed(given, _ROOM) for given in _written(plain)]
    return [problem for problem in [*found, *_packaged(plain)] if problem]


def clashes(plain: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each place where nothing should be written. Assumes that no path is ``impossible``."""
    inputs, written = [given for given in _inputs(plain) if os.path.lexists(given.path)], list(_written(plain))
    outputs, export = (next((given for given in written if given.key == key), None) for key in _WRITTEN)
    if found := [problem for given in written if (problem := _no_place(given))]:
        return found
    if outputs is not None:
        found += [problem for given in inputs if (problem := _beside_outputs(given, outputs))]
    if export is not None and (problem := _export(export, inputs, outputs)):
        found.append(problem)
    return found


def _inputs(plain: Mapping[str, Any]) -> Iterator[Given]:
    """Yield every path that is read. A hub id is treated as a path that need not exist."""
    task = plain["task"] if isinstance(plain["task"], Mapping) else {}
    for key, value in (
        ("model.path", _of(plain, "model", "path")),
        ("calibration.path", _of(plain, "calibration", "path")),
        ("task.include", task.get("include")),
        ("probes", plain["probes"]),
        ("perplexity.text", None if plain["perplexity"]["text"] == STORIES else plain["perplexity"]["text"]),
    ):
        if isinstance(value, str) and value.strip():
            yield Given(key, value)
    sets = task.get("sets")
    for value in sets if isinstance(sets, list) else ():
        if isinstance(value, str) and value.strip() and value not in BUILT_IN:
            yield Given("task.sets", value)


def _packaged(plain: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each value that cannot be a package, or a file or folder inside one."""
    for group in ("model", "calibration"):
        package = _of(plain, group, "package")
        if not isinstance(package, str) or not package.strip():
            continue
        if not all(part.isidentifier() for part in package.split(".")):
            yield f"{group}.package={package} is not the name of a Python package; give one"
        for key in ("file", "folder"):
            inside = _of(plain, group, key)
            if isinstance(inside, str) and (inside.startswith("/") or ".." in inside.split("/") or "\0" in inside):
                yield f"{group}.{key}={inside} is not inside the package {package}; give a path relative to its folder"


def _of(plain: Mapping[str, Any], group: str, key: str) -> object:
    node = plain.get(group)
    return node.get(key) if isinstance(node, Mapping) else None


def _written(plain: Mapping[str, Any]) -> Iterator[Given]:
    for key, value in zip(_WRITTEN, (plain["outputs"], plain["export"]["path"]), strict=True):
        if isinstance(value, str) and value.strip():
            yield Given(key, value)


def _malformed(given: Given, room: int) -> str | None:
    """Return why a text cannot be a path to read (or, with ``room`` bytes for private names beside it, to write)."""
    text = given.text
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return f"{given.key}={text!r} is not valid text; give a path in UTF-8"
    if "\0" in text or (room and any(unicodedata.category(letter) == "Cc" for letter in text)):
        return f"{given.key}={text!r} contains a control character; give another path"
    if text.startswith("~") and os.path.expanduser(text) == text:
        return f"{given} begins with ~, but there is no such home directory; give the path in full"
    if max(map(len, encoded.split(b"/"))) > _LONGEST_NAME - room or len(encoded) > _LONGEST_PATH:
        return f"{given.key} is too long for a path ({len(encoded)} bytes); give a shorter one"
    try:
        os.stat(given.path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"{given} cannot be reached ({error.strerror}); give another path"
    return None


def _no_place(given: Given) -> str | None:
    """Return why no folder can or should be made at a place, or None."""
    for place in (given.path, *given.path.parents):
        if place.is_symlink() and not place.exists():
            return f"{given}: {place} is a broken link; give another folder"
        if place.exists():
            # ``pipeline.check.job`` reports a file in its place.
            if place.is_dir() or place.is_file():
                break
            return f"{given}: {place} is not a folder; give another"
    if given.real == Path("/") or given.real in _homes(given.real):
        return f"{given} contains more than results; give a folder used for nothing else"
    if any(_within(given.real, folder) for folder in _SOURCES):
        return f"{given} is inside the source tree; give a folder outside it"
    return None


def _beside_outputs(given: Given, outputs: Given) -> str | None:
    if _within(outputs.real, given.real):
        where = "is" if outputs.real == given.real else "is inside"
        return f"{outputs} {where} {given}, which is an input; give another folder as outputs"
    managed = next((name for name in _MADE if _within(given.real, outputs.real / name)), None)
    if managed is None or _is_export(given.real, outputs.real):
        return None
    return f"{given} is inside {outputs.text}/{managed}, whose contents may be deleted; copy it elsewhere first"


def _is_export(path: Path, stop: Path) -> bool:
    """Return whether a path is an export, or inside one, below ``stop``."""
    return any(_within(place, stop) and (place / FACTS).is_file() for place in (path, *path.parents))


def _export(export: Given, inputs: list[Given], outputs: Given | None) -> str | None:
    """Return why an export would replace something or mix with it, or None."""
    real, way = export.real, "give a folder used for nothing else"
    if _within(REPOSITORY, real) or any(_within(home, real) for home in _homes(real)):
        return f"{export} contains more than a model; {way}"
    if outputs is not None:
        if _within(outputs.real, real):
            return f"{export} is or contains {outputs}; {way}"
        if any(_within(real, outputs.real / name) for name in _MADE):
            return f"{export} is inside the results in {outputs}; {way}"
    for given in inputs:
        if given.real == real:
            what = (
                "the folder that the model is loaded from"
                if given.key == "model.path"
                else f"the path given as {given.key}"
            )
            return f"{export.key}={export.path} is {what}; give another folder"
        if _within(given.real, real):
            return f"{export} contains {given}, which is an input; {way}"
        if _within(real, given.real):
            return f"{export} is inside {given}, which is an input; {way}"
    return None


def _homes(path: Path) -> set[Path]:
    """Return the home directories that a folder could be or hold: this user's and that of the folder's owner."""
    homes = set()
    with suppress(RuntimeError):
        homes.add(Path(os.path.realpath(Path.home())))
    with suppress(OSError, KeyError):
        homes.add(Path(os.path.realpath(pwd.getpwuid(path.stat().st_uid).pw_dir)))
    return homes


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
