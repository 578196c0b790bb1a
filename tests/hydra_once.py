"""Makes Hydra read its own files, and parse each word of a command line, once for all compositions of a process.

Both take as long as all the rest of a composition, of which there are more than a thousand. Files of ``conf/`` are read
each time, but for the checks, which compose a few choices again and again.
"""

from __future__ import annotations

import copy
from typing import Any

from hydra import compose
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from pipeline.check import command_line


def remember(kind: type, name: str) -> None:
    """Make a method give copies of what it gave before for the same argument."""
    original, given = getattr(kind, name), {}

    def once(self: Any, argument: str) -> Any:
        key = getattr(self, "path", None), argument
        if key not in given:
            given[key] = original(self, argument)
        return copy.deepcopy(given[key])

    setattr(kind, name, once)


def compose_once(name: str, overrides: list[str]) -> DictConfig:
    key = tuple(overrides)
    if key not in _composed:
        _composed[key] = compose(name, overrides=overrides)
    return _composed[key]


_composed: dict[tuple[str, ...], DictConfig] = {}
command_line.compose = compose_once
remember(ImportlibResourcesConfigSource, "load_config")
remember(OverridesParser, "parse_override")
