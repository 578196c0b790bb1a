"""What is wrong with a launcher on the command line, before anything is composed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from pipeline.choices import CONF, choices_of, nearest

GROUP, NODE = "hydra/launcher", "hydra.launcher."
_DEFAULT = "sequential"


def _count(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "jobs": (_count, "a whole number of at least 1, or null"),
    "memory": (lambda value: _number(value) and 0 < value <= 1, "a share above 0 and at most 1, such as 0.9"),
    "grace_seconds": (lambda value: _number(value) and 0 <= value < 86400, "a number of seconds, such as 30"),
}


def launcher_problems(overrides: Sequence[str]) -> list[str]:
    """Plain sentences, each naming the way out; empty if the launcher and its keys are there, and their values fit."""
    given = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    launcher, known = given.get(GROUP, _DEFAULT), choices_of(GROUP)
    if launcher not in known:
        return [f"{GROUP}={launcher} does not exist; {nearest(launcher, known)}"]
    keys = {str(key) for key in OmegaConf.load(CONF / GROUP / f"{launcher}.yaml")} - {"_target_"}
    found = []
    for key, text in given.items():
        name = key.removeprefix(NODE)
        if name == key:
            continue
        if name not in keys:
            found.append(f"{key} is no key of {GROUP}={launcher}; {nearest(name, keys)}")
        elif name in _WANTED:
            fits, wanted = _WANTED[name]
            if not fits(_value(key, text)):
                found.append(f"{key}={text} should be {wanted}")
    return found


def _value(key: str, text: str) -> Any:
    try:
        return OverridesParser.create().parse_override(f"{key}={text}").value()
    except HydraException:
        return text
