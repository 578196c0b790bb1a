"""What is wrong with a launcher on the command line, before anything is composed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from pipeline.config.choices import CONF, choices_of, nearest

GROUP, NODE = "hydra/launcher", "hydra.launcher."
_DEFAULT = "sequential"
# Of a launcher's YAML: what it is made of.
_FIXED = ("_target_",)
_LARGEST = 2**31


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < _LARGEST


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


_Wanted = tuple[Callable[[Any], bool], str]
_WANTED: dict[str, _Wanted] = {
    "jobs": (lambda value: value is None or _whole(value, 1), "a whole number of at least 1, or null"),
    "memory": (lambda value: _number(value) and 0 < value <= 1, "a share above 0 and at most 1, such as 0.9"),
    "grace_seconds": (lambda value: _number(value) and 0 <= value < 86400, "a number of seconds, such as 30"),
    "mem_gb": (lambda value: value is None or (_number(value) and value > 0), "a number of GiB, such as 16, or null"),
    "max_num_timeout": (lambda value: _whole(value, 0), "a whole number of at least 0"),
    "additional_parameters": (
        lambda value: value is None or isinstance(value, Mapping),
        "pairs such as {nodelist: node07}, or null",
    ),
    "setup": (
        lambda value: value is None or (isinstance(value, list) and all(map(_text, value))),
        "a list of shell commands, or null",
    ),
}


def launcher_problems(overrides: Sequence[str]) -> list[str]:
    """Plain sentences, each naming the way out; empty if the launcher and its keys are there, and their values fit."""
    given = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    launcher, known = given.get(GROUP, _DEFAULT), choices_of(GROUP)
    if launcher not in known:
        return [f"{GROUP}={launcher} does not exist; {nearest(launcher, known)}"]
    file: Any = OmegaConf.to_container(OmegaConf.load(CONF / GROUP / f"{launcher}.yaml"), resolve=False)
    defaults = {str(key): value for key, value in file.items() if key not in _FIXED}
    found = []
    for key, text in given.items():
        name, _, inside = key.removeprefix(NODE).partition(".")
        if not key.startswith(NODE):
            continue
        if name not in defaults or (inside and not isinstance(defaults[name], Mapping)):
            found.append(f"{key} is not a key of {GROUP}={launcher}; {nearest(key.removeprefix(NODE), defaults)}")
            continue
        fits, wanted = _like(None) if inside else _WANTED.get(name) or _like(defaults[name])
        if not fits(_value(key, text)):
            found.append(f"{key}={text} should be {wanted}")
    return found


def _like(default: Any) -> _Wanted:
    """What a value has to be whose key has such a value in the YAML."""
    if isinstance(default, bool):
        return lambda value: isinstance(value, bool), "true or false"
    if isinstance(default, int):
        return lambda value: _whole(value, 1), "a whole number of at least 1"
    if isinstance(default, float):
        return _number, "a number"
    if isinstance(default, Mapping):
        return lambda value: isinstance(value, Mapping), "pairs {key: value}"
    if isinstance(default, str):
        return _text, "a text"
    return lambda value: value is None or _text(value) or _whole(value, 0) or value is True, "a word, a number or null"


def _value(key: str, text: str) -> Any:
    """The value as a job gets it; a text that cannot be read stays one, and is told of with all other words."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        return text if override.is_sweep_override() else override.value()
    except (HydraException, RecursionError):
        return text
