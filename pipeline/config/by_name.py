"""Components by the names of their YAML files, for callers without a command line: checked and built the same way.

The one file besides ``pipeline.check`` and those that run jobs that sees OmegaConf. Hydra's global state is left as it
was, so that this works inside an application of Hydra, too.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.utils import get_class
from hydra.version import VersionBase
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

from pipeline.config.choices import choices_of, nearest
from pipeline.config.impossible import troubles
from pipeline.config.schema import NODES, Config
from pipeline.config.search_path import CONF, folders, searched
from pipeline.config.signature import component_problems, listed_component
from pipeline.config.types import converted, misfits

# Version of Hydra whose behaviour is used.
VERSION_BASE = "1.3"
# What Hydra knows of its application, and would change.
_GLOBAL = (GlobalHydra, VersionBase, JobRuntime)
_MISSING = "???"


def component(group: str, name: str, options: Mapping[str, Any], **root: Any) -> Any:
    """Build the choice ``name`` of a group (``pruner``, ``task``, ``calibration``) with some options changed.

    ``root`` are values of keys of the root that choices refer to, such as ``seed``. Raises ValueError with a sentence
    for each problem: an unknown name or option with the nearest one, a value of a wrong type, a missing one.
    """
    if name not in choices_of(group):
        raise ValueError(f"{group}={name} does not exist; {nearest(str(name), choices_of(group))}")
    if own := {"_target_", "name"} & options.keys():
        raise ValueError(f"{group}.{own.pop()} belongs to the YAML file of {name}; leave it out")
    return built(group, {**defaults(group, name, **root), **options})


def defaults(group: str, name: str, **root: Any) -> dict[str, Any]:
    """Return the values of a choice, ``_target_`` included, as plain values. Raises ValueError for a bad ``root``."""
    hints = get_type_hints(Config, include_extras=True)
    if found := [problem for key, value in root.items() for problem in misfits(key, hints[key], value)]:
        raise ValueError("; ".join(found))
    cfg = OmegaConf.create(_composed(group, name, folders()))
    cfg.update(root)
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    return values[group]


def built(group: str, values: Mapping[str, Any]) -> Any:
    """Build the component that ``_target_`` names. Raises ValueError with a sentence for each value that is wrong."""
    node = {key: plain(value) for key, value in values.items()}
    found = [f"{group}.{key} is required" for key, value in node.items() if value == _MISSING]
    missing = [key for key, value in node.items() if value == _MISSING]
    node = listed_component(node)
    found += component_problems(group, node, missing)
    found += [f"{group}.{key}={node[key]} {trouble}" for key in node for trouble in dict.fromkeys(troubles(node[key]))]
    if found:
        raise ValueError("; ".join(found))
    return get_class(node.pop("_target_"))(**node)


def settings(key: str, **values: Any) -> Any:
    """Return the settings of a key that has keys of its own, such as ``capture``, with some of them changed.

    Raises ValueError with a sentence for each unknown key and each value of a wrong type.
    """
    node: dict[str, Any] = dict(_composed("pruner", "dense", folders())[key])
    hints = get_type_hints(NODES[key], include_extras=True)
    found = [f"{key}.{name}: unknown key; {nearest(name, hints)}" for name in values if name not in hints]
    node |= {name: plain(value) for name, value in values.items() if name in hints}
    node = {name: converted(hints[name], plain(value)) for name, value in node.items()}
    for name, value in node.items():
        found += misfits(f"{key}.{name}", hints[name], value)
        found += [f"{key}.{name}={value} {trouble}" for trouble in dict.fromkeys(troubles(value))]
    if found:
        raise ValueError("; ".join(found))
    return NODES[key](**node)


def plain(value: Any) -> Any:
    """Return a value as YAML would give it: lists, mappings, texts and Python's own numbers."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # NumPy's numbers are numbers, too.
    if isinstance(value, numbers.Integral) and not isinstance(value, int):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, int | float):
        return float(value)
    return value


@cache
def _composed(group: str, name: str, where: Sequence[Path]) -> Any:
    """Return the configuration with one choice of these folders, as plain values with its references unresolved."""
    with _own_hydra(), initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        return OmegaConf.to_container(compose("config", overrides=[f"{group}={name}", *searched()]), resolve=False)


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Set Hydra's global state aside within the block."""
    kept: dict[type, Any] = {kind: Singleton._instances.pop(kind) for kind in _GLOBAL if kind in Singleton._instances}
    resolvers = dict(BaseContainer._resolvers)
    try:
        yield
    finally:
        for kind in _GLOBAL:
            Singleton._instances.pop(kind, None)
        Singleton._instances.update(kept)
        BaseContainer._resolvers.clear()
        BaseContainer._resolvers.update(resolvers)
