"""Makes Hydra read each file, parse each word of a command line, and join the same files, once in a process.

These take as long as all the rest of a composition, of which there are more than a thousand. A file that has changed is
read again.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from pipeline.check import command_line


def remember(kind: type, name: str, state: Any) -> None:
    """Make a method give copies of what it gave before for the same arguments and the same ``state`` of the object.

    A state of None is one that is not to be remembered.
    """
    original, given = getattr(kind, name), {}

    def once(self: Any, *arguments: Any, **named: Any) -> Any:
        key = state(self, *arguments, **named)
        if key is None:
            return original(self, *arguments, **named)
        if key not in given:
            given[key] = pickle.dumps(original(self, *arguments, **named))
        # A quarter of what a deep copy takes.
        return pickle.loads(given[key])

    setattr(kind, name, once)


def _places(repository: Any, config: str) -> tuple[object, ...]:
    """Where a configuration may come from, and which version of it lies there."""
    found: list[object] = [config]
    for source in repository.get_sources():
        file = Path(source.path, f"{config.removesuffix('.yaml')}.yaml")
        known = file.stat() if source.scheme() == "file" and file.is_file() else None
        found += [source.scheme(), source.path, known and (known.st_mtime_ns, known.st_size, known.st_ino)]
    return tuple(found)


def _read(repository: Any, config_path: str) -> object:
    return _places(repository, config_path)


def _joined(_: Any, defaults: list[Any], repo: Any) -> object:
    return tuple((repr(default), _places(repo, default.config_path)) for default in defaults if default.config_path)


def compose_once(name: str, overrides: list[str]) -> DictConfig:
    key = tuple(overrides)
    if key not in _composed:
        _composed[key] = compose(name, overrides=overrides)
    return _composed[key]


_composed: dict[tuple[str, ...], DictConfig] = {}
command_line.compose = compose_once
remember(ConfigRepository, "load_config", _read)
remember(ConfigLoaderImpl, "_compose_config_from_defaults_list", _joined)
remember(OverridesParser, "parse_override", lambda _, word: word)
