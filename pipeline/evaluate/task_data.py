"""The files that task files of the user's own read: what lies below their folder, and what they name elsewhere."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.store.integrity import MANIFEST, file_digest

# Keys of a definition whose texts are files, folders or patterns.
_DATA_KEYS = ("data_files", "data_dir", "dataset_path")
# Ways of the datasets library to read files; other names are those of data on the hub.
LOADERS = ("json", "csv", "parquet", "arrow", "text", "xml", "pandas", "webdataset", "generator")
_FUNCTION = "!function"
_OWN_FUNCTION = re.compile(rf"{_FUNCTION} pipeline\.[\w.]*?(\w+)$", re.MULTILINE)
# Made anew as programs run, and by tools: what is in them says nothing about a task.
_MADE = ("__pycache__",)
_RESULTS = ("store", "jobs", "runs", "tables")
_LONGEST = 4096


def shipped_digest(path: Path) -> str:
    """Return 16 hex digits of a file that comes with this project or a package.

    In a task file our own functions count by their names, so that moving one to another module changes nothing.
    """
    if path.suffix != ".yaml":
        return file_digest(path)[:16]
    text = _OWN_FUNCTION.sub(rf"{_FUNCTION} \1", path.read_text(encoding="utf-8"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def reads_local_data(definitions: Iterable[Any], index: Mapping[str, Any]) -> bool:
    """Tell whether the data of every one of these definitions, names of ``index`` or mappings, is on this machine."""
    places = []
    for own in definitions:
        entry = index.get(own) if isinstance(own, str) else None
        path = (own if isinstance(own, Mapping) else (getattr(entry, "cfg", None) or {})).get("dataset_path")
        source = getattr(entry, "yaml_path", None)
        places.append(located(path, Path(source).parent) if source and isinstance(path, str) else path)
    return bool(places) and all(isinstance(at, str) and (at in LOADERS or os.path.exists(at)) for at in places)


def check_examples(task: Any, name: str) -> None:
    """Raise ValueError if a task of lm-eval is to put more examples before an item than it has."""
    wanted = task.get_config("num_fewshot") or 0
    if not wanted:
        return
    there, split = len(list(task.fewshot_docs() or ())), task.fewshot_cfg.split
    # The item itself is none of its own examples.
    own = split is not None and split == task.get_config("test_split")
    if wanted > there - own:
        besides = " beside the item itself" if own else ""
        raise ValueError(
            f"task {name}: task.shots={wanted} asks for more examples than the {max(there - own, 0)} that it "
            f"has{besides}; give fewer"
        )


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Regular files below a folder by their relative names; without hidden ones, caches, and results of this project.

    A folder of tasks may be the one in which commands are given, where results grow.
    """
    seen = {os.path.realpath(folder)}
    for place, inner, names in os.walk(folder, followlinks=True):
        # Links may lead back up, which has no end; what is behind one counts once.
        inner[:] = [name for name in sorted(inner) if _new(os.path.join(place, name), seen)]
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                yield os.path.relpath(path, folder), path


def files_named(nodes: Iterable[yaml.Node], beside: Path) -> dict[str, Path]:
    """Files that the nodes of a task file in the folder ``beside`` name, by their names as they are written there.

    These are data as the datasets library looks for them, modules of functions with all that lies beside them, and
    any text that is the name of a file.
    """
    found: dict[str, Path] = {}
    for node in nodes:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value in _DATA_KEYS:
                    for text in _texts(value):
                        found |= _data(text, beside)
        elif isinstance(node, yaml.ScalarNode) and node.tag == _FUNCTION:
            module = (beside / node.value).with_suffix(".py")
            around = sorted(module.parent.glob("*.py"))
            found |= {f"{node.value} {path.name}": path for path in around if path.is_file()}
        elif isinstance(node, yaml.ScalarNode):
            found |= _file(node.value, beside)
    return found


def _new(path: str, seen: set[str]) -> bool:
    name, real = os.path.basename(path), os.path.realpath(path)
    if real in seen or name.startswith(".") or name in _MADE or _is_results(path):
        return False
    seen.add(real)
    return True


def _is_results(path: str) -> bool:
    """Whether a folder holds results of this project, which are no task's data."""
    parts = [part for part in _RESULTS if os.path.isdir(os.path.join(path, part))]
    return os.path.isfile(os.path.join(path, MANIFEST)) or len(parts) > 1


def _texts(node: yaml.Node) -> Iterator[str]:
    """The texts of a node: itself, or those of a list or mapping, however deep."""
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    elif isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            yield from _texts(inner)
    elif isinstance(node, yaml.MappingNode):
        for _, inner in node.value:
            yield from _texts(inner)


def located(text: str, beside: Path) -> str:
    """Return a text about data with a relative path made absolute, if something is there beside the definition."""
    before, mark, last = text.rpartition("::")
    scheme = "file://" if last.startswith("file://") else ""
    place = os.path.expanduser(last.removeprefix(scheme))
    if not _may_be_a_path(place) or "://" in place or os.path.isabs(place):
        return text
    there = os.path.join(beside, place)
    return f"{before}{mark}{scheme}{there}" if os.path.exists(there) or glob.glob(there, recursive=True) else text


def _data(text: str, beside: Path) -> dict[str, Path]:
    """The files of one text about data: a file, all below a folder, or those that fit a pattern."""
    # Such as zip://rows.jsonl::data.zip: what is on this machine comes last.
    place = os.path.expanduser(located(text, beside).rpartition("::")[2].removeprefix("file://"))
    if not _may_be_a_path(place) or "://" in place:
        return {}
    found: dict[str, Path] = {}
    for name in [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True)):
        # A key says how the data is called, wherever its folder stands.
        known = os.path.relpath(name, beside) if place.startswith(f"{beside}{os.sep}") else name
        if os.path.isdir(name):
            found |= {os.path.join(known, inner): path for inner, path in files_below(Path(name))}
        elif os.path.isfile(name):
            found[known] = Path(name)
    return found


def _file(text: str, beside: Path) -> dict[str, Path]:
    if not _may_be_a_path(text):
        return {}
    ways = (Path(os.path.expanduser(text)), beside / text)
    return {f"{text} {number}": path for number, path in enumerate(ways) if path.is_file()}


def _may_be_a_path(text: str) -> bool:
    return bool(text.strip()) and len(text) < _LONGEST and "\0" not in text and "\n" not in text
