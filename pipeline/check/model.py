"""Checks of a chosen model, alone and with the pruner and the tasks, without loading its weights."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.packages import package_file
from pipeline.config.choices import nearest
from pipeline.config.lengths import too_long
from pipeline.config.schema import flatten
from pipeline.config.signature import declared
from pipeline.config.sparsity import parse, unaccepted
from pipeline.evaluate.retrieval.recipe import recipe_of
from pipeline.evaluate.suite import TaskSuite
from pipeline.model.model_types import causal_types, encoder_types, is_encoder, unsuited
from pipeline.model.sources.folder import ADAPTER, CONFIG, LAYER_KEYS, TOKENIZERS, check_folder, read_json

# Units that an integer sparsity counts, and the number of them in a block.
_UNITS = {
    "block": ("block", 1),
    "attention": ("attention sublayer", 1),
    "mlp": ("MLP sublayer", 1),
    "sublayer": ("sublayer", 2),
}


def check_model(plain: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each problem of where the model comes from and of what it is asked to do."""
    return _path(plain["model"]) + _embedding(plain["model"]) + _architecture(plain) + _lengths(plain)


def _path(model: Mapping[str, Any]) -> list[str]:
    """Check that a model path that looks like a directory is one and holds a model."""
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
    return [f"model.path={given} is not a directory; {hint}give a directory or a hub id such as Qwen/Qwen3-4B"]


def _folder(given: str, path: Path, trusted: bool) -> list[str]:
    """Check that a directory holds a model that can be loaded, as far as its files tell without the weights."""
    if not (path / CONFIG).exists() and not (path / ADAPTER).exists():
        return [f"model.path={given} contains no {CONFIG}, so it is not a model; give the folder of a model"]
    try:
        check_folder(path, trusted)
    except ValueError as error:
        return [f"model.path: {error}"]
    if not any((path / name).is_file() for name in TOKENIZERS) and not list(path.glob("*.tiktoken")):
        way = "copy tokenizer.json and tokenizer_config.json from the model that this one was derived from"
        return [f"model.path={given} contains no tokenizer; {way}"]
    return []


def _embedding(model: Mapping[str, Any]) -> list[str]:
    """Check the model's own recipe for embedding a text."""
    try:
        recipe_of(model.get("embedding"))
    except ValueError as error:
        return [str(error)]
    return []


def _architecture(plain: Mapping[str, Any]) -> list[str]:
    """Check that the architecture is supported and can do what the stages ask; known for random and local models."""
    model, known = plain["model"], (*causal_types(), *encoder_types())
    facts = _facts(model) | ({"model_type": model["architecture"]} if model.get("architecture") else {})
    kind = facts.get("model_type")
    if kind is None:
        return []
    if kind not in known and not facts.get("auto_map"):
        if "architecture" in model:
            return [f"model.architecture={kind} does not exist; {nearest(str(kind), known)}"]
        return [
            f"model.path={model['path']}: model type {kind} is unknown to the installed transformers, or neither "
            "predicts the next token nor embeds texts; update transformers, or give a model that does"
        ]
    needed = ["capture", "measure"]
    if writes_text(plain["task"]):
        needed.insert(0, "evaluate")
    writing = [stage for stage in plain["stages"] if stage in needed]
    if is_encoder(facts) and writing:
        return [
            f"model={model['name']} is an encoder, which generates no text, so it cannot run {', '.join(writing)}; "
            "give task=retrieval stages=[prune,evaluate,plot], or stages=[prune] with export.path=DIR to keep the model"
        ]
    pruner = plain["pruner"]
    decoder_only = bool(declared(pruner, "decoder_only") or declared(pruner, "compares"))
    why = unsuited(str(kind), is_encoder(facts), decoder_only, declared(pruner, "architectures") or ())
    return [f"model={model['name']}: pruner={pruner['name']} {why}"] if why else []


def _lengths(plain: Mapping[str, Any]) -> list[str]:
    """Check that sequences fit the model's positions, which are known for local models."""
    facts = _facts(plain["model"])
    positions = facts.get("max_position_embeddings") or facts.get("n_positions")
    calibrated = declared(plain["pruner"], "calibrated") is not False
    return too_long(flatten(plain), positions, calibrated) if isinstance(positions, int) else []


def check_text(plain: Mapping[str, Any], chosen: bool) -> list[str]:
    """Refuse given text, which says less and is long, to a pruner for text of the model's own, unless it was chosen."""
    pruner, text = plain["pruner"], plain["calibration"]
    if chosen or not declared(pruner, "own_text") or declared(text, "generated"):
        return []
    return [
        f"pruner={pruner['name']} chooses by predictions, which works best on text that the dense model wrote: add "
        "calibration=trajectories (in a sweep, for all pruners, so that they share one text), or give "
        f"calibration={text['name']} to choose by that text"
    ]


def check_sparsity(plain: Mapping[str, Any]) -> list[str]:
    """Check that the sparsity makes sense for this pruner on this model."""
    try:
        sparsity = parse(plain["sparsity"])
    except ValueError as error:
        return [str(error)] if str(error).startswith("sparsity") else []
    pruner, accepts = plain["pruner"]["name"], declared(plain["pruner"], "accepts") or ()
    if sparsity.is_zero or not accepts:
        return []
    if problem := unaccepted(pruner, accepts, sparsity):
        return [problem]
    layers, unit = layers_of(plain["model"]), str(declared(plain["pruner"], "unit"))
    # A unit that is none is told by its type.
    if layers is None or sparsity.kind == "pattern" or "units" not in accepts or unit not in _UNITS:
        return []
    word, a_block = _UNITS[unit]
    total = layers * a_block
    if sparsity.units > total:
        return [
            f"sparsity={sparsity.given} asks pruner={pruner} for {sparsity.units} units, but "
            f"model={plain['model']['name']} has {total} {word}s; give at most {total}"
        ]
    if word == "block" and sparsity.units_of(total) == total:
        return [f"sparsity={sparsity.given} removes all {total} blocks; leave at least one"]
    return []


def layers_of(model: Mapping[str, Any]) -> int | None:
    """Return the number of blocks, or None if it is not known without loading the model."""
    if isinstance(model.get("layers"), int):
        return model["layers"]
    facts = _facts(model)
    return next((facts[key] for key in LAYER_KEYS if isinstance(facts.get(key), int)), None)


def _facts(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration file of a local model, or of one in a package; empty if it cannot be relied on."""
    try:
        if isinstance(model.get("folder"), str):
            return read_json(package_file(str(model["package"]), f"{model['folder']}/{CONFIG}", "a check"))
        return check_folder(Path(os.path.expanduser(str(model.get("path")))), trusted=True)
    except ValueError:
        return {}


def writes_text(task: Mapping[str, Any]) -> bool:
    """Return whether a task suite needs a model that writes text; True if the suite cannot be found."""
    try:
        return suite_of(task).writes_text
    except (AttributeError, ImportError, KeyError):
        return True


def suite_of(node: Mapping[str, Any]) -> type[TaskSuite]:
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)
