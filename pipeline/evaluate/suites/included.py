"""The user's own task files: the files that a folder of them depends on, and the code that it would run.

lm-eval reads every YAML file below such a folder. A tag ``!function`` imports Python from beside the file, and a metric
that is a path or a repository is a program; both are found here without running anything.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.common.regular_files import check_regular
from pipeline.evaluate.task_data import files_below, files_named
from pipeline.store.integrity import known_digest

# Tags of plain values; all others construct something.
_PLAIN = "tag:yaml.org,2002:"
_OBJECTS = f"{_PLAIN}python"
# lm-eval itself looks for the first ending only; an include may name both.
_ENDINGS = ("*.yaml", "*.yml")


def task_files(folder: Path) -> dict[Path, yaml.Node]:
    """Parse the YAML files below a folder, and those that they include, wherever these are.

    Raises ValueError, naming the file, if one cannot be read, is not YAML, or includes a missing file.
    """
    found: dict[Path, yaml.Node] = {}
    ahead = sorted(path for ending in _ENDINGS for path in folder.rglob(ending) if not path.is_dir())
    while ahead:
        # Links are resolved, since the includes of a file start from its real folder.
        path = Path(os.path.realpath(ahead.pop(0)))
        if path not in found:
            found[path] = _parsed(path)
            ahead += (path.parent / named for named in _included(found[path]))
    return found


def code_in(folder: Path) -> list[str]:
    """Describe where the files below a folder name Python code; return an empty list if they are only data.

    lm-eval's own files, which may be included, do not count. Raises ValueError as ``task_files`` does.
    """
    own, files = _own_folder(), task_files(folder)
    return [
        f"{path.name} ({what})"
        for path, node in files.items()
        if not path.is_relative_to(own) and (what := _code(node))
    ]


def content_of(folder: Path) -> list[list[str]]:
    """Return names and digests of all files that the tasks of a folder depend on.

    These are definitions, programs, prompts and data: every file below the folder, and those that its task files name
    elsewhere. Files that only programs name are not known. Raises ValueError as ``task_files`` does, and for a file
    that cannot be read.
    """
    top, own, found = Path(os.path.realpath(folder)), _own_folder(), dict(files_below(folder))
    for path, node in task_files(folder).items():
        found[os.path.relpath(path, top)] = path
        if not path.is_relative_to(own):
            found |= files_named(_nodes(node), path.parent)
    return sorted([name, _digest(path)] for name, path in found.items())


def _digest(path: Path) -> str:
    try:
        return known_digest(path)[:16]
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"task.include: {path} cannot be read ({reason}); fix it or remove it") from error


def _parsed(path: Path) -> yaml.Node:
    try:
        check_regular(path)
        with path.open("rb") as stream:
            node = yaml.compose(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"task.include: {path} cannot be read ({reason}); fix it or remove it") from error
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"task.include: {path} is not valid YAML ({reason}); fix it or remove it") from error
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"task.include: {path} does not describe a task (a mapping); fix it or remove it")
    return node


def _included(node: yaml.Node) -> Iterator[str]:
    for key, value in node.value:
        if key.value == "include":
            parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
            yield from (part.value for part in parts if isinstance(part, yaml.ScalarNode) and "\0" not in part.value)


def _code(node: yaml.Node) -> str | None:
    """Return the first part of a file that would run code, or None."""
    for inner in _nodes(node):
        if not inner.tag.startswith(_PLAIN) or inner.tag.startswith(_OBJECTS):
            return f"{inner.tag} {inner.value}" if isinstance(inner.value, str) else inner.tag
        if isinstance(inner, yaml.MappingNode):
            for key, value in inner.value:
                if key.value == "metric" and isinstance(value, yaml.ScalarNode) and _is_program(value.value):
                    return f"metric: {value.value}"
    return None


def _is_program(metric: str) -> bool:
    """Return whether the library of metrics would look for a script, here or in a repository, rather than a name."""
    return "/" in metric or metric.endswith(".py") or os.path.exists(os.path.join(metric, f"{metric}.py"))


def _nodes(top: yaml.Node) -> Iterator[yaml.Node]:
    """Yield every node once, however often it is referenced."""
    seen: set[int] = set()
    ahead: list[Any] = [top]
    while ahead:
        node = ahead.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            ahead += (part for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            ahead += node.value


def _own_folder() -> str:
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.origin is not None
    return os.path.join(os.path.dirname(os.path.realpath(spec.origin)), "tasks")
