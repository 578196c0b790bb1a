"""Check of the launcher on the command line, before anything is composed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from pipeline.check.plugins import LAUNCHER as GROUP
from pipeline.check.plugins import plugin_choices, plugin_problems
from pipeline.common.packages import absent
from pipeline.config.choices import choices_of, nearest, read_choice
from pipeline.config.types import Count, Positive, Share, Within, listed, misfits

NODE = "hydra.launcher."
_DEFAULT = "sequential"
# Keys of a launcher's YAML file that cannot be set.
_FIXED = ("_target_",)


# Types of the keys whose default value does not determine them.
_TYPES: dict[str, Any] = {
    "jobs": Positive | None,
    "memory": Share,
    "grace_seconds": Annotated[float, Within(0, 86400, "a number of seconds, such as 30")],
    "mem_gb": Annotated[float, Within(1e-3, 1e6, "a number of GiB, such as 16")] | None,
    "max_num_timeout": Count,
    "additional_parameters": dict[str, Any] | None,
    "setup": list[str] | None,
}
# In the place of the values of a list.
_SEVERAL = object()
# Any value that an option of sbatch takes.
_WORD = str | Count | Literal[True] | None


def launcher_problems(overrides: Sequence[str]) -> list[str]:
    """Return a sentence with the way out for each problem of the launcher, its keys and their values."""
    given = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    launcher, own = given.get(GROUP, _DEFAULT), choices_of(GROUP)
    if launcher not in own:
        return _of_plugin(launcher, {key: text for key, text in given.items() if key.startswith(NODE)})
    if launcher == "slurm" and (missing := absent("submitit", "slurm")):
        return [f"{GROUP}=slurm: {missing}"]
    defaults = {key: value for key, value in read_choice(GROUP, launcher).items() if key not in _FIXED}
    found = []
    for key, text in given.items():
        name, _, inside = key.removeprefix(NODE).partition(".")
        if not key.startswith(NODE):
            continue
        if name not in defaults or (inside and not isinstance(defaults[name], Mapping)):
            found.append(f"{key} is not a key of {GROUP}={launcher}; {nearest(key.removeprefix(NODE), defaults)}")
            continue
        kind = _WORD if inside else _TYPES.get(name, _like(defaults[name]))
        value = _value(key, text)
        if value is _SEVERAL:
            way = f"""if the comma is part of the value, write '{key}="{text}"'"""
            found.append(f"{key}={text} lists several values, but a sweep has one launcher: give one value; {way}")
            continue
        found += (
            [f"{key}={text} contains a line break; remove it"]
            if _is_broken(value)
            else misfits(key, kind, listed(kind, value))
        )
    return found


def _of_plugin(launcher: str, settings: Mapping[str, str]) -> list[str]:
    """Check a launcher of an installed Hydra plugin, such as joblib or submitit_slurm."""
    known = plugin_choices(GROUP)
    if launcher not in known:
        return [f"{GROUP}={launcher} does not exist; {nearest(launcher, {*choices_of(GROUP), *known})}"]
    return plugin_problems(GROUP, launcher, settings)


def _like(default: Any) -> Any:
    """Return the type of a key from its default value in the YAML file."""
    return {bool: bool, int: Positive, str: str}.get(type(default), _WORD)


def _is_broken(value: Any) -> bool:
    return not all(str(text).isprintable() for text in (value if isinstance(value, list) else [value]))


def _value(key: str, text: str) -> Any:
    """Return a value as a job gets it, or _SEVERAL. Unreadable text, which ``read_words`` reports, stays text."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        return _SEVERAL if override.is_sweep_override() else override.value()
    except (HydraException, RecursionError):
        return text
