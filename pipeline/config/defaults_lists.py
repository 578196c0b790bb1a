"""Problems of YAML files of choices and of their ``defaults``: Hydra's messages name no file and no nearest choice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.config.choices import choices_of, file_of, nearest, no_default
from pipeline.config.search_path import KNOWN

_SELF, _UNSET = "_self_", "???"
# Choices of this group come from Hydra and its plugins, too.
_HYDRA = "hydra"


def defaults_problem(group: str, name: str) -> str | None:
    """Return what is wrong with the file of a choice or with one that its defaults name; None if nothing is."""
    return _problem(group, name, ())


def invalid_yaml(error: yaml.YAMLError) -> str:
    """Return the sentence about a file that is not valid YAML, whose path and line the error has."""
    return f"a configuration file is not valid YAML: {' '.join(str(error).split())}; fix it"


def _problem(group: str, name: str, above: tuple[Path, ...]) -> str | None:
    path = file_of(group, name)
    if path is None:
        return None
    if path in above:
        return f"{path}: its defaults lead back to itself; remove {name} from those of {above[-1]}"
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except UnicodeDecodeError:
        return f"{path} is not valid UTF-8; save it as UTF-8"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); correct that"
    except yaml.YAMLError as error:
        return invalid_yaml(error)
    if content is not None and not isinstance(content, dict):
        return f"{path} holds {content!r}; write keys with values, such as name: {name}"
    listed = (content or {}).get("defaults") or []
    if not isinstance(listed, list):
        return f"{path}: its defaults are {listed!r}; write a list, such as [{listed}]"
    found = (problem for entry in listed for problem in _entry(path, group, entry, above))
    return next(found, None)


def _entry(path: Path, group: str, entry: Any, above: tuple[Path, ...]) -> Iterator[str]:
    """Yield the problems of one entry of a list: a name, or a group with a name or several."""
    pair = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else None
    key, value = pair or (None, entry)
    if not isinstance(value, str | list | None) or (pair is None and not isinstance(value, str)):
        yield f"{path}: {entry!r} in its defaults is neither the name of a choice nor a group with one; correct it"
        return
    *words, inner = str(key or "").split(" ")
    if "optional" in words:
        return
    for choice in value if isinstance(value, list) else [value]:
        if not isinstance(choice, str) or choice in (_SELF, _UNSET) or "${" in choice:
            continue
        written = "/".join(part.partition("@")[0] for part in (inner, choice) if part)
        place, _, name = _absolute(group, written).rpartition("/")
        if place.partition("/")[0] == _HYDRA:
            continue
        if not choices_of(place):
            groups = [known for known in KNOWN if known != _HYDRA]
            yield f"{path}: its defaults name a group {place}, which does not exist; {nearest(place, groups)}"
        elif name not in choices_of(place):
            yield no_default(path, place, name)
        elif problem := _problem(place, name, (*above, path)):
            yield problem


def _absolute(group: str, written: str) -> str:
    """Return the path of a choice, which is written from the root with a slash, else from the group of its file."""
    return written.removeprefix("/") if written.startswith("/") else f"{group}/{written}"
