"""Everything that is wrong with a command line, found at once and before anything heavy is imported."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline import config as schema
from pipeline.check_job import check_component, check_job
from pipeline.choices import CONF, choices_of, nearest
from pipeline.config import flatten
from pipeline.redaction import redact, secret_in


def problems(arguments: Sequence[str], multirun: bool) -> list[str]:
    """Plain sentences, each naming the way out; empty if the command line is fine."""
    found: list[str] = []
    groups, values = _sort(arguments, multirun, found)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for choices in _product(groups):
            try:
                cfg = compose("config", overrides=[f"{group}={choice}" for group, choice in choices.items()])
            except (HydraException, OmegaConfBaseException) as error:
                found.append(str(error).splitlines()[0])
                continue
            for setting in _product(_known(values, cfg, found)):
                found += _check_one(cfg, setting)
    GlobalHydra.instance().clear()
    # Some sentences quote the values that they are about.
    return list(dict.fromkeys(map(redact, found)))


def _sort(
    arguments: Sequence[str], multirun: bool, found: list[str]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Split overrides into group choices and values, each with all their sweep alternatives; drop the bad ones."""
    groups: dict[str, list[Any]] = {}
    values: dict[str, list[Any]] = {}
    parser = OverridesParser.create()
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except HydraException as error:
            found.append(f"cannot read {argument!r}: {str(error).splitlines()[0]}; write key=value")
            continue
        key = override.key_or_group
        if key.startswith("hydra"):
            continue
        if override.is_delete() or override.package is not None:
            found.append(f"{argument}: write key=value; keys can be set, not deleted or moved")
            continue
        try:
            options = list(_alternatives(override))
        except HydraException:
            found.append(f"{argument}: list the values of a sweep one by one, separated by commas")
            continue
        if key == "outputs" and len(options) > 1:
            found.append(f"{argument}: a sweep has one outputs folder")
            continue
        if key == schema.EXPERIMENT and (len(options) > 1 or key in groups):
            found.append(f"{argument}: give one experiment at a time, since each has a sweep of its own")
            continue
        if len(options) > 1 and not multirun:
            found.append(f"{argument} lists {len(options)} values: add -m to run them as a sweep")
        if key in (*schema.GROUPS, schema.EXPERIMENT):
            known = choices_of(key)
            for option in options:
                if option not in known:
                    found.append(f"{key}={option} does not exist; {nearest(str(option), known)}")
            groups[key] = [option for option in options if option in known]
        else:
            values[key] = options
    return {key: options for key, options in groups.items() if options}, values


def _alternatives(override: Override) -> Iterator[Any]:
    if override.is_sweep_override():
        for value in override.sweep_iterator():
            yield value.text if hasattr(value, "text") else value
    else:
        yield override.value()


def _product(options: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*options.values()):
        yield dict(zip(options, combination, strict=True))


def _known(values: Mapping[str, list[Any]], cfg: DictConfig, found: list[str]) -> dict[str, list[Any]]:
    """The values whose key this composition has; the others are reported."""
    keys = _keys(cfg)
    kept = {}
    for key, options in values.items():
        if key in keys:
            kept[key] = options
        else:
            found.append(f"{key} is no key{_owner(key, cfg)}; {nearest(key, _siblings(key, keys))}")
    return kept


def _keys(cfg: DictConfig, prefix: str = "") -> set[str]:
    keys = set()
    for key in cfg:
        path = f"{prefix}{key!s}"
        if str(key).startswith("_") or path == "hydra":
            continue
        keys.add(path)
        if not OmegaConf.is_missing(cfg, key) and OmegaConf.is_dict(cfg._get_node(key)):
            keys |= _keys(cfg[key], f"{path}.")
    return keys


def _siblings(key: str, keys: set[str]) -> set[str]:
    head = key.rpartition(".")[0]
    inside = {known for known in keys if known.rpartition(".")[0] == head}
    return inside if head else {known for known in keys if "." not in known} | set(difflib.get_close_matches(key, keys))


def _owner(key: str, cfg: DictConfig) -> str:
    group = key.partition(".")[0]
    if group not in schema.GROUPS or group not in cfg:
        return ""
    name = cast(dict[str, Any], OmegaConf.to_container(cfg[group])).get("name", group)
    return f" of {group}={name}" if "${" not in str(name) else f" of this {group}"


def _check_one(cfg: DictConfig, setting: Mapping[str, Any]) -> list[str]:
    """Problems of one composed configuration with plain values set."""
    found = []
    cfg = cfg.copy()
    for key, value in setting.items():
        try:
            OmegaConf.update(cfg, key, value)
        except OmegaConfBaseException as error:
            found.append(f"{key}={value}: {str(error).splitlines()[0]}")
    try:
        plain, missing = _plain(cfg)
    except OmegaConfBaseException as error:
        return [*found, _unresolved(str(error).splitlines()[0], cfg)]
    try:
        # A value that refers to another one shows its type only now.
        OmegaConf.merge(OmegaConf.structured(schema.Config), plain)
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        return [*found, f"{key}={setting.get(key, '')} gives a value of another type; write the value itself"]
    found += [problem for key, value in flatten(plain).items() if (problem := secret_in(key, value))]
    found += [f"{key} has to be given: {key}=<{_wanted(key)}>" for key in missing]
    found += [problem for group in schema.GROUPS for problem in check_component(group, plain.get(group), missing)]
    return found + check_job(plain, bool(missing), any(problem.startswith("sparsity") for problem in found))


def _unresolved(message: str, cfg: DictConfig) -> str:
    """Experiments know the sparsities of their own pruners only."""
    if "'sparsity_of." in message:
        return f"the experiment has no sparsity for pruner={cfg.pruner.name}; give one, such as sparsity=0.5"
    return f"cannot be resolved: {message}"


def _plain(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """The resolved configuration, with mandatory values that were not given as None, and their keys."""
    raw = flatten(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False)))
    missing = sorted(key for key, value in raw.items() if value == "???")
    for key in missing:
        OmegaConf.update(cfg, key, None, force_add=True)
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)), missing


def _wanted(key: str) -> str:
    return {
        "model.path": "hub id or directory",
        "calibration.path": "file or directory",
        "task.names": "list of names in lm-eval",
        "task.sets": "list of directories",
    }.get(key, "value")
