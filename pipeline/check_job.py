"""What is wrong with one resolved configuration, value by value, without importing anything heavy."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import config as schema
from pipeline.calibration.text_files import files_of, kind_of
from pipeline.choices import choices_of, figure_names, nearest
from pipeline.models.folder import CONFIG, LAYER_KEYS, check_folder, read_json
from pipeline.packages import package_file
from pipeline.probes import read_probes
from pipeline.retrieval.recipe import recipe_of
from pipeline.signature import architectures, misfit, signature
from pipeline.sparsity import KINDS, parse
from pipeline.tasks.base import TaskSuite

# What an integer sparsity counts, and how many of these a block has.
_UNITS = {
    "block": ("block", 1),
    "attention": ("attention sublayer", 1),
    "mlp": ("MLP sublayer", 1),
    "sublayer": ("sublayer", 2),
}


def check_component(group: str, node: Any, missing: Sequence[str]) -> list[str]:
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
    if group == "task" and not found and not missing:
        found += _task(node)
    return found


def _task(node: Mapping[str, Any]) -> list[str]:
    """Suites are light to import and know their own values."""
    return _suite(node)(**{key: value for key, value in node.items() if key != "_target_"}).problems()


def _suite(node: Mapping[str, Any]) -> type[TaskSuite]:
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def writes_text(task: Mapping[str, Any]) -> bool:
    """Whether a task suite needs a model that writes text; so does one that cannot be found."""
    try:
        return _suite(task).writes_text
    except (AttributeError, ImportError, KeyError):
        return True


def check_job(plain: Mapping[str, Any], incomplete: bool, bad_sparsity: bool) -> list[str]:
    """What does not go together in one resolved configuration. ``incomplete`` if mandatory values are not given."""
    found = _root(plain)
    if not bad_sparsity:
        found += _sparsity(plain)
    if not incomplete:
        found += (
            _path(plain["model"])
            + _embedding(plain["model"])
            + _calibration_path(plain["calibration"])
            + _architecture(plain)
        )
    return found


def _root(plain: Mapping[str, Any]) -> list[str]:
    found = []
    capture, measure = plain["capture"], plain["measure"]
    for key, value, known in (
        ("dtype", plain["dtype"], schema.DTYPES),
        ("capture.dtype", capture["dtype"], schema.CAPTURE_DTYPES),
        ("capture.decoding", capture["decoding"], schema.DECODINGS),
        ("measure.readout", measure["readout"], schema.READOUTS),
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
    if capture["option_items"] < 0:
        found.append(f"capture.option_items={capture['option_items']} should be at least 0")
    if not _positive(capture["temperature"]):
        found.append(f"capture.temperature={capture['temperature']} should be a number above 0")
    listed = measure["temperatures"]
    if not listed or len(set(map(str, listed))) < len(listed) or any(not _positive(t) for t in listed):
        found.append(f"measure.temperatures={measure['temperatures']} should be a list of different numbers above 0")
    found += _figures(plain["figures"]) + _probes(plain["probes"]) + _perplexity(plain)
    return found + _outputs(plain["outputs"]) + _export(plain)


def _figures(figures: Sequence[str] | None) -> list[str]:
    """Figures are called in full or by their number."""
    known = figure_names()
    spellings = [name.partition("_")[0] for name in known] + known
    if figures is None:
        return []
    return _listed("figures", figures, spellings)


def _probes(path: str | None) -> list[str]:
    try:
        read_probes(path)
    except ValueError as error:
        return [str(error)]
    return []


def _perplexity(plain: Mapping[str, Any]) -> list[str]:
    """Text to be had, windows that overlap or touch, and nothing that the pruner was calibrated on."""
    chosen = plain["perplexity"]
    tokens, window, stride, text = (chosen[key] for key in ("tokens", "window", "stride", "text"))
    if tokens is None:
        return []
    found = []
    if not 2 <= window < tokens:
        found.append(f"perplexity.window={window} should be at least 2 and less than perplexity.tokens={tokens}")
    elif not 1 <= stride < window:
        found.append(f"perplexity.stride={stride} should be at least 1 and less than perplexity.window={window}")
    if text == schema.STORIES:
        return found
    path = Path(os.path.expanduser(text))
    if not path.is_file() or kind_of(path) is None:
        found.append(f"perplexity.text={text}: give {schema.STORIES}, or a .txt, .jsonl, .jsonl.gz or .parquet file")
    given = plain["calibration"].get("path")
    if isinstance(given, str) and path.absolute() == Path(os.path.expanduser(given)).absolute():
        found.append(f"perplexity.text={text} is the calibration text, which says nothing; give another")
    return found


def _listed(key: str, items: Sequence[str], known: Sequence[str]) -> list[str]:
    if not items:
        return [f"{key} is empty; choose from {', '.join(known)}"]
    return [f"{key}: {item} does not exist; {nearest(item, known)}" for item in items if item not in known]


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def _outputs(outputs: str) -> list[str]:
    if not outputs.strip() or outputs.startswith("~"):
        return [f"outputs={outputs!r}: give a folder in full, without ~"]
    return _writable("outputs", Path(outputs))


def _writable(key: str, path: Path) -> list[str]:
    above = next((parent for parent in [path, *path.absolute().parents] if parent.exists()), path)
    if above.is_file():
        return [f"{key}={path}: {above} is a file; give a folder"]
    return [] if os.access(above, os.W_OK) else [f"{key}={path} cannot be written; give another folder"]


def _export(plain: Mapping[str, Any]) -> list[str]:
    """An export goes to a folder of its own, which is new, empty, or holds exports already."""
    if plain["export"] is None:
        return []
    path = Path(str(plain["export"])).expanduser().absolute()
    if not str(plain["export"]).strip():
        return ["export is empty; give a folder"]
    if path == Path(str(plain["model"].get("path"))).expanduser().absolute():
        return [f"export={path} is where the model comes from; give another folder"]
    if path.is_dir() and not (path / "pruning.json").is_file() and any(inside.is_file() for inside in path.iterdir()):
        return [f"export={path} holds other files; give a folder of its own"]
    return _writable("export", path)


def _architecture(plain: Mapping[str, Any]) -> list[str]:
    """Is the architecture supported, and can it do what the stages ask? Known for random and for local models."""
    model, known = plain["model"], architectures()
    kind = model.get("architecture") or _facts(model).get("model_type")
    if kind is None:
        return []
    if kind not in known:
        key = "model.architecture" if "architecture" in model else f"model.path={model['path']}: architecture"
        return [f"{key}={kind} is not supported; {nearest(str(kind), known)}"]
    needed = ["capture", "measure"]
    if writes_text(plain["task"]):
        needed.insert(0, "evaluate")
    writing = [stage for stage in plain["stages"] if stage in needed]
    if known[kind] and writing:
        return [
            f"model={model['name']} is an encoder, which writes no text: {', '.join(writing)} cannot be done; "
            "give task=retrieval stages=[prune,evaluate,plot], or stages=[prune] with export=DIR to keep the model"
        ]
    if known[kind] and _compares(plain["pruner"]):
        return [
            f"model={model['name']} is an encoder, which predicts no tokens for pruner={plain['pruner']['name']} to "
            "compare; give another pruner, such as shortgpt or wanda"
        ]
    return []


def _compares(pruner: Mapping[str, Any]) -> bool:
    try:
        return bool(signature(pruner["_target_"]).constants.get("compares"))
    except ValueError:
        return False


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
    facts = _facts(model)
    return next((facts[key] for key in LAYER_KEYS if isinstance(facts.get(key), int)), None)


def _facts(model: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration file of a local model, or of one that a package carries; empty if there is none to rely on."""
    try:
        if isinstance(model.get("folder"), str):
            return read_json(package_file(str(model["package"]), f"{model['folder']}/{CONFIG}", "a check"))
        return check_folder(Path(os.path.expanduser(str(model.get("path")))), trusted=True)
    except ValueError:
        return {}


def _path(model: Mapping[str, Any]) -> list[str]:
    """A model path that looks like a directory has to be one, with a model in it."""
    given = model.get("path")
    if not isinstance(given, str):
        return []
    path = Path(os.path.expanduser(given))
    looks_local = given.startswith(("/", ".", "~")) or given.count("/") != 1
    try:
        if path.is_dir():
            return _folder(given, path, bool(model.get("trust_remote_code")))
        if not looks_local:
            return []
        siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    except OSError as error:
        return [f"model.path={given} cannot be read ({error.strerror}); give another directory or a hub id"]
    close = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"did you mean {path.parent / close[0]}? " if close else ""
    return [f"model.path={given} is no directory; {hint}give a directory or a hub id such as Qwen/Qwen3-4B"]


def _folder(given: str, path: Path, trusted: bool) -> list[str]:
    """A model's directory holds a model that can be loaded, as far as that can be said without its weights."""
    if not (path / CONFIG).exists():
        return [f"model.path={given} holds no {CONFIG}, so no model"]
    try:
        check_folder(path, trusted)
    except ValueError as error:
        return [f"model.path: {error}"]
    return []


def _embedding(model: Mapping[str, Any]) -> list[str]:
    """A model's own way to embed a text has to be one that there is."""
    try:
        recipe_of(model.get("embedding"))
    except ValueError as error:
        return [str(error)]
    return []


def _calibration_path(calibration: Mapping[str, Any]) -> list[str]:
    """A calibration path has to be there and of a kind that can be read."""
    if not isinstance(calibration.get("path"), str):
        return []
    try:
        files_of(calibration["path"])
    except ValueError as error:
        return [str(error)]
    return []
