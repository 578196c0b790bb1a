"""Everything that is wrong with a command line, found at once and before anything heavy is imported."""

from __future__ import annotations

import difflib
import importlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline import config as schema
from pipeline.calibration.text_files import files_of
from pipeline.config import flatten
from pipeline.signature import misfit, signature
from pipeline.sparsity import KINDS, parse

CONF = Path(__file__).resolve().parent.parent / "conf"
# What an integer sparsity counts, and how many of these a block has.
_UNITS = {
    "block": ("block", 1),
    "attention": ("attention sublayer", 1),
    "mlp": ("MLP sublayer", 1),
    "sublayer": ("sublayer", 2),
}
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


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
    return list(dict.fromkeys(found))


def choices_of(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def nearest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean x?`` and the list of what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return (f"did you mean {close[0]}? " if close else "") + f"choose from {', '.join(known)}"


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
        if len(options) > 1 and not multirun:
            found.append(f"{argument} lists {len(options)} values: add -m to run them as a sweep")
        if key in schema.GROUPS:
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
        return [*found, f"cannot be resolved: {str(error).splitlines()[0]}"]
    found += [f"{key} has to be given: {key}=<{_wanted(key)}>" for key in missing]
    found += [problem for group in schema.GROUPS for problem in _component(group, plain.get(group), missing)]
    found += _root(plain)
    if not any(problem.startswith("sparsity") for problem in found):
        found += _sparsity(plain)
    if not missing:
        found += _path(plain["model"]) + _calibration_path(plain["calibration"])
    return found


def _plain(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """The resolved configuration, with mandatory values that were not given as None, and their keys."""
    raw = flatten(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False)))
    missing = sorted(key for key, value in raw.items() if value == "???")
    for key in missing:
        OmegaConf.update(cfg, key, None, force_add=True)
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)), missing


def _wanted(key: str) -> str:
    return {"model.path": "hub id or directory", "calibration.path": "file or directory"}.get(key, "value")


def _component(group: str, node: Any, missing: Sequence[str]) -> list[str]:
    """Does a group's node fit the constructor that its ``_target_`` names?"""
    if not isinstance(node, dict) or "_target_" not in node:
        return [f"{group} has to be a choice of conf/{group}: {', '.join(choices_of(group))}"]
    try:
        fields = signature(node["_target_"]).fields
    except ValueError as error:
        return [f"conf/{group}: _target_ {node['_target_']}: {error}"]
    found = [f"conf/{group}: {key} is missing beside _target_" for key in fields if key not in node]
    for key, value in node.items():
        if key == "_target_" or f"{group}.{key}" in missing or (missing and key == "name"):
            continue
        if key not in fields:
            found.append(f"{group}.{key} is read by nothing; {nearest(key, fields)}")
        elif wanted := misfit(fields[key], value):
            found.append(f"{group}.{key}={value} should be {wanted}")
    if group == "task" and not found:
        found += _task(node)
    return found


def _task(node: Mapping[str, Any]) -> list[str]:
    """Suites are light to import and know their own values."""
    module, _, name = node["_target_"].rpartition(".")
    suite = getattr(importlib.import_module(module), name)
    return suite(**{key: value for key, value in node.items() if key != "_target_"}).problems()


def _root(plain: Mapping[str, Any]) -> list[str]:
    found = []
    capture, measure = plain["capture"], plain["measure"]
    for key, value, known in (
        ("dtype", plain["dtype"], schema.DTYPES),
        ("capture.dtype", capture["dtype"], schema.CAPTURE_DTYPES),
        ("wandb.mode", plain["wandb"]["mode"], schema.WANDB_MODES),
    ):
        if value not in known:
            found.append(f"{key}={value} does not exist; {nearest(str(value), known)}")
    found += _listed("stages", plain["stages"], schema.STAGES)
    found += _listed("capture.protocols", capture["protocols"], schema.PROTOCOLS)
    if plain["seed"] < 0:
        found.append(f"seed={plain['seed']} should be at least 0")
    if capture["steps"] < 1:
        found.append(f"capture.steps={capture['steps']} should be at least 1")
    listed = measure["temperatures"]
    if not listed or len(set(map(str, listed))) < len(listed) or any(not _positive(t) for t in listed):
        found.append(f"measure.temperatures={measure['temperatures']} should be a list of different numbers above 0")
    return found + _outputs(plain["outputs"]) + _export(plain)


def _listed(key: str, items: Sequence[str], known: Sequence[str]) -> list[str]:
    if not items:
        return [f"{key} is empty; choose from {', '.join(known)}"]
    return [f"{key}: {item} does not exist; {nearest(item, known)}" for item in items if item not in known]


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def _outputs(outputs: str) -> list[str]:
    if not outputs.strip() or outputs.startswith("~"):
        return [f"outputs={outputs!r}: give a folder in full, without ~"]
    path = Path(outputs)
    above = next((parent for parent in [path, *path.absolute().parents] if parent.exists()), path)
    if above.is_file():
        return [f"outputs={outputs}: {above} is a file; give a folder"]
    return [] if os.access(above, os.W_OK) else [f"outputs={outputs} cannot be written; give another folder"]


def _export(plain: Mapping[str, Any]) -> list[str]:
    """An export goes to a folder of its own, which is new, empty, or an export already."""
    if plain["export"] is None:
        return []
    path = Path(str(plain["export"])).expanduser()
    if not str(plain["export"]).strip() or path.is_file():
        return [f"export={plain['export']!r}: give a folder"]
    if path.resolve() == Path(str(plain["model"].get("path"))).expanduser().resolve():
        return [f"export={path} is where the model comes from; give another folder"]
    return []


def _sparsity(plain: Mapping[str, Any]) -> list[str]:
    """Does the sparsity make sense, for this pruner, on this model?"""
    try:
        sparsity = parse(plain["sparsity"])
        constants = signature(plain["pruner"]["_target_"]).constants
    except ValueError as error:
        return [str(error)] if str(error).startswith("sparsity") else []
    pruner, accepts = plain["pruner"]["name"], constants.get("accepts", ())
    if sparsity.is_zero or not accepts:
        return []
    if sparsity.kind not in accepts:
        wanted = " or ".join(KINDS[kind] for kind in accepts)
        return [
            f"sparsity={sparsity.given} is {KINDS[sparsity.kind].split(' such')[0]}, but pruner={pruner} takes {wanted}"
        ]
    layers = _layers(plain["model"])
    if layers is None or sparsity.kind == "pattern" or "units" not in accepts:
        return []
    word, a_block = _UNITS[constants["unit"]]
    total = layers * a_block
    if sparsity.units > total:
        return [
            f"sparsity={sparsity.given} asks pruner={pruner} for {sparsity.units} units, but "
            f"model={plain['model']['name']} has {total} {word}s; give at most {total}"
        ]
    if word == "block" and sparsity.units_of(total) == total:
        return [f"sparsity={sparsity.given} removes all {total} blocks; keep at least one"]
    return []


def _layers(model: Mapping[str, Any]) -> int | None:
    """Number of blocks, if that is known without loading the model."""
    if isinstance(model.get("layers"), int):
        return model["layers"]
    path = Path(str(model.get("path"))).expanduser() / "config.json"
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return next((facts[key] for key in _LAYER_KEYS if isinstance(facts.get(key), int)), None)


def _path(model: Mapping[str, Any]) -> list[str]:
    """A model path that looks like a directory has to be one, with a model in it."""
    given = model.get("path")
    if not isinstance(given, str):
        return []
    path = Path(given).expanduser()
    looks_local = given.startswith(("/", ".", "~")) or given.count("/") != 1
    if path.is_dir():
        return [] if (path / "config.json").is_file() else [f"model.path={given} holds no config.json, so no model"]
    if not looks_local:
        return []
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"did you mean {path.parent / close[0]}? " if close else ""
    return [f"model.path={given} is no directory; {hint}give a directory or a hub id such as Qwen/Qwen3-4B"]


def _calibration_path(calibration: Mapping[str, Any]) -> list[str]:
    """A calibration path has to be there and of a kind that can be read."""
    if not isinstance(calibration.get("path"), str):
        return []
    try:
        files_of(calibration["path"])
    except ValueError as error:
        return [str(error)]
    return []
