"""Hydra's settings and flags that the command line takes: they neither lead results elsewhere nor run other code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from pipeline.check.launcher import GROUP, NODE

VERBOSE = "hydra.verbose"
# Any other flag would make Hydra write outside of outputs, read a configuration from elsewhere, or load a pickle.
_RUNNING = ("-m", "--multirun", "-r", "--run")
_SHOWING = ("-h", "--help", "--hydra-help", "--version", "--resolve", "-c", "--cfg", "-i", "--info", "-p", "--package")
_COMPLETION = ("-sc", "--shell-completion")
# What to do instead of giving a refused setting.
_WAYS = {
    "hydra.run": "results go to outputs=DIR",
    "hydra.sweep": "results go to outputs=DIR",
    "hydra.output_subdir": "results go to outputs=DIR",
    "hydra.job": "results go to outputs=DIR",
    "hydra.mode": "give -m for a sweep",
    "hydra.sweeper": "list the values of a sweep, separated by commas",
    "hydra.searchpath": "put your own YAML files into conf/",
    "hydra.launcher": f"give {GROUP}=NAME and set its keys one by one",
}


def is_hydras(key: str) -> bool:
    return key == "hydra" or key.startswith(("hydra.", "hydra/"))


def hydra_problem(override: Override, text: str) -> str | None:
    """Return why one of Hydra's keys cannot be overridden and what to write instead; None if it can."""
    key = override.key_or_group
    if key == GROUP or key.startswith(NODE):
        # The names of launchers and of their keys are checked in ``pipeline.check.launcher``.
        plain = override.type.name == "CHANGE" and override.package is None
        return None if plain else f"{text}: write plain {key}=VALUE"
    if key == VERBOSE:
        value: Any = override.value()
        names = value if isinstance(value, list) else [value]
        if isinstance(value, bool) or (names and all(isinstance(name, str) and name.strip() for name in names)):
            return None
        return f"{text}: give true or the names of loggers"
    node = ".".join(key.replace("/", ".").split(".")[:2])
    way = _WAYS.get(node, f"only {GROUP}, {NODE}KEY and {VERBOSE} can be set")
    return f"{text}: {key} cannot be set here; {way}"


def flag_problems(arguments: Sequence[str]) -> list[str]:
    """Return a sentence for each flag that the command line does not take."""
    known = (*_RUNNING, *_SHOWING, *_COMPLETION)
    found = []
    for argument in arguments:
        flag = argument.partition("=")[0]
        if argument.startswith("-") and flag not in known:
            found.append(f"unknown flag {flag}; use -m for a sweep, --help for help, and key=value for settings")
    return found
