"""Everything that is wrong with a command line, found at once and before anything heavy is imported."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from pipeline.check.job import check_component, check_job
from pipeline.check.model import check_text
from pipeline.check.names import name_problems
from pipeline.check.paths import clashes, impossible
from pipeline.check.values import value_problems
from pipeline.check.words import MOST_JOBS, Words, first_line, read_words, shortened
from pipeline.common.errors import plain as plain_cause
from pipeline.common.secrets import redact, secret_in
from pipeline.config import schema
from pipeline.config.choices import CONF, nearest
from pipeline.config.schema import flatten
from pipeline.config.signature import signature

_NODES = ("export", "capture", "measure", "perplexity", "wandb")
# Which of a node's keys is meant by a value for the node.
_FIRST = {"export": "path", "capture": "steps", "wandb": "mode", "perplexity": "tokens"}
# A permission is given in so many words: other values are not taken for a yes.
_PERMISSIONS = ("allow_code_execution",)


def problems(arguments: Sequence[str], multirun: bool) -> list[str]:
    """Plain sentences, each naming the way out; empty if the command line is fine. Raises nothing for bad input."""
    words = read_words(arguments, multirun)
    found = list(words.problems)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for choices in _product(words.groups) if words.jobs <= MOST_JOBS else ():
            try:
                cfg = compose("config", overrides=[f"{group}={choice}" for group, choice in choices.items()])
            except (HydraException, OmegaConfBaseException, UnicodeDecodeError) as error:
                found.append(f"the configuration cannot be composed: {first_line(error)}; mend the YAML file in conf/")
                continue
            except yaml.YAMLError as error:
                found.append(f"a file in conf/ is not YAML: {' '.join(str(error).split())}; mend it")
                continue
            raw: Any = OmegaConf.to_container(cfg, resolve=False)
            names = {group: (raw[group].get("name"), choices.get(group)) for group in schema.GROUPS}
            for setting in _product(_known(words, cfg, found)):
                found += _check_one(cfg, setting, names, words.growing)
    GlobalHydra.instance().clear()
    # Some sentences quote the values that they are about.
    return list(dict.fromkeys(map(redact, found)))


def _product(options: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*options.values()):
        yield dict(zip(options, combination, strict=True))


def _known(words: Words, cfg: DictConfig, found: list[str]) -> dict[str, list[Any]]:
    """The values whose key this composition has; the others are reported."""
    keys = _keys(cfg)
    kept = {}
    for key, options in words.values.items():
        if key not in keys and _is_open(key.rpartition(".")[0], cfg):
            if key in words.growing:
                kept[key] = options
            else:
                found.append(f"{shortened(key)} is not there yet; write +{shortened(key)}=VALUE to add it")
        elif key not in keys:
            found.append(f"{shortened(key)} is not a key{_owner(key, cfg)}; {nearest(key, _siblings(key, keys))}")
        elif key in _NODES and any(not isinstance(one, Mapping) for one in options):
            own = sorted(known.removeprefix(f"{key}.") for known in keys if known.startswith(f"{key}."))
            first = _FIRST.get(key, own[0])
            found.append(f"{key} has keys of its own, {', '.join(own)}: write {key}.{first}={shortened(options[0])}")
        elif key in words.added and not (_is_open(key, cfg) and all(isinstance(one, Mapping) for one in options)):
            found.append(f"+{key}: {key} is there already; write it without +")
        else:
            kept[key] = options
    return kept


def _is_open(key: str, cfg: DictConfig) -> bool:
    """Whether a key is a mapping whose own keys are the user's choice, such as task.metrics."""
    group, _, field = key.partition(".")
    node: Any = cfg.get(group) if group in schema.GROUPS else None
    try:
        fields = signature(node["_target_"]).fields if OmegaConf.is_dict(node) else {}
    except (ValueError, KeyError, OmegaConfBaseException):
        return False  # which is told where the components are checked
    return any(choice.strip().startswith("dict[") for choice in fields.get(field, "").split("|"))


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


def _check_one(
    cfg: DictConfig, setting: Mapping[str, Any], names: Mapping[str, Any], growing: Collection[str]
) -> list[str]:
    """Problems of one composed configuration with plain values set. ``names`` are those of its choices.

    ``growing`` are the keys that may be new.
    """
    found = []
    cfg = cfg.copy()
    for key, value in setting.items():
        try:
            OmegaConf.update(cfg, key, value, force_add=key in growing)
        except ConfigKeyError:
            found.append(
                f"{key}={shortened(value)} adds to what is there; write it with a +: +{key}={shortened(value)}"
            )
        except (OmegaConfBaseException, OverflowError, RecursionError) as error:
            found.append(f"{key}={shortened(value)}: {shortened(first_line(error))}; give another value")
        if key in _PERMISSIONS and not isinstance(value, bool):
            found.append(f"{key}={shortened(value)} should be true or false")
    try:
        plain, missing = _plain(cfg)
    except (OmegaConfBaseException, RecursionError) as error:
        return [*found, _unresolved(first_line(error), cfg)]
    try:
        # A value that refers to another one shows its type only now; that of others was seen as they were set.
        if any("${" in str(value) for value in setting.values()):
            OmegaConf.merge(_typed(), {key: value for key, value in plain.items() if key not in schema.GROUPS})
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        return [*found, f"{key}={setting.get(key, '')} gives a value of another type; write the value itself"]
    found += [problem for key, value in flatten(plain).items() if (problem := secret_in(key, value))]
    found += [f"{key} has to be given: {key}=<{_wanted(key)}>" for key in missing]
    if any(key in _NODES for key in missing):
        return found
    found += [*value_problems(plain), *name_problems(plain, names)]
    if unreadable := impossible(plain):
        # The other checks look at what is there.
        return found + unreadable
    found += clashes(plain)
    found += _checked(plain, missing, any(problem.startswith("sparsity") for problem in found))
    return found or check_text(plain, chosen=names["calibration"][1] is not None)


def _checked(plain: dict[str, Any], missing: Sequence[str], bad_sparsity: bool) -> list[str]:
    found: list[str] = []
    try:
        for group in schema.GROUPS:
            found += check_component(group, plain.get(group), missing)
        return found + check_job(plain, bool(missing), bad_sparsity)
    except OSError as error:
        where = f"{error.filename} " if error.filename else "a file "
        return [*found, f"{where}cannot be looked at ({error.strerror or error}); give another path"]
    except Exception as error:
        # Nothing that is written on a command line ends in a traceback; values of another type are told already.
        return found or [f"these values cannot be checked ({plain_cause(error)}); take them back one by one"]


@cache
def _typed() -> DictConfig:
    return OmegaConf.structured(schema.Config)


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
