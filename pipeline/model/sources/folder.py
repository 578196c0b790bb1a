"""Checks of a model directory before anything is loaded: no code, no pickle, whole files, sizes that fit each other.

Light to import: the check of the command line uses it, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

CONFIG = "config.json"
LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_TOKENIZER_CONFIG, ADAPTER = "tokenizer_config.json", "adapter_config.json"
# Files that a tokenizer is built from; one of them is enough.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", _TOKENIZER_CONFIG)
# Files that libraries read if they are there, and ignore silently if they are garbage.
_OPTIONAL = (_TOKENIZER_CONFIG, "generation_config.json")
_WEIGHTS, _INDEX, _SUFFIX = "model.safetensors", "model.safetensors.index.json", ".safetensors"
# Configuration fields that mark quantized weights, and files beside it in which older tools mark them.
_QUANTIZED = ("quantization_config", "compression_config")
_QUANTIZERS = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CONVERT = (
    "pickled weights can run code when they are loaded, so they are refused; convert them once, on a machine where "
    "you trust them, with save_pretrained(..., safe_serialization=True)"
)
# Counts in a configuration, under the names of the various families.
_SIZES = (
    *LAYER_KEYS,
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"),
    *("n_embd", "n_head", "n_inner", "n_positions", "ffn_dim", "word_embed_proj_dim", "max_position_embeddings"),
    *("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "sliding_window"),
    *("shared_expert_intermediate_size", "type_vocab_size", "decoder_sparse_step"),
)
_LARGEST, _MOST_BLOCKS = 2**31, 10_000
# JSON files of a model are far smaller; a larger file is something else.
_MOST_BYTES = 2**27


@dataclass(frozen=True)
class Weights:
    """Tensors of a checkpoint by name: shapes, types as safetensors calls them, and the file of each."""

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]
    files: dict[str, Path]

    @property
    def values(self) -> int:
        """Total number of values."""
        return sum(map(prod, self.shapes.values()))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError that names the file."""
    try:
        if not path.is_file():
            raise ValueError(f"{path} is not a file; a model directory needs one")
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise ValueError(f"{path} has {size} bytes, too many for a model's configuration; get a fresh copy")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give another model directory") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply; get a fresh copy") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); get a fresh copy") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); get a fresh copy") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} contains no JSON object; get a fresh copy")
    return found


def check_config(facts: Mapping[str, Any], where: str, trusted: bool) -> None:
    """Raise ValueError for a configuration that runs code unasked, points elsewhere, or has impossible sizes.

    Quantized weights are refused, too: pruning and measures need the values that they encode.

    ``where`` is its file or its repository. No size is used before it is checked here.
    """
    if facts.get("auto_map") and not trusted:
        raise ValueError(_foreign(where))
    if method := next((_method(facts[key]) for key in _QUANTIZED if facts.get(key)), None):
        raise ValueError(_dequantize(where, method))
    if "transformers_weights" in facts:
        raise ValueError(f"{where} names other weights (transformers_weights); remove that key and use {_WEIGHTS}")
    attention = facts.get("attn_implementation")
    if attention is not None and attention not in ("eager", "sdpa"):
        raise ValueError(f"{where}: attn_implementation={attention!r} may fetch code; remove it")
    try:
        json.dumps(facts, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"{where} contains NaN or infinity, so the model's outputs would be meaningless; fix it"
        ) from error
    kind = facts.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise ValueError(f"{where}: model_type={kind!r} should be the name of an architecture")
    for key in _SIZES:
        value, (least, most) = facts.get(key), (1, _MOST_BLOCKS) if key in LAYER_KEYS else (0, _LARGEST)
        if key not in facts or (value is None and key not in LAYER_KEYS):
            continue
        if not (type(value) is int and least <= value <= most):
            raise ValueError(f"{where}: {key}={_short(value)} should be a whole number from {least} to {most}")


def check_folder(folder: Path, trusted: bool) -> dict[str, Any]:
    """Check a model directory without opening its weights; return its configuration.

    Raises ValueError for pickles without safetensors, PEFT adapters, and all that ``check_config`` refuses.
    """
    if (folder / ADAPTER).is_file():
        raise ValueError(
            f"{folder} contains a PEFT adapter ({ADAPTER}), not a model: merge it first (merge_and_unload, then "
            "save_pretrained) and give the merged model's directory"
        )
    facts = read_json(folder / CONFIG)
    check_config(facts, str(folder / CONFIG), trusted)
    for name, method in _QUANTIZERS.items():
        if (folder / name).is_file():
            raise ValueError(_dequantize(str(folder / name), method))
    for path in (folder / name for name in _OPTIONAL):
        if path.is_file() and read_json(path).get("auto_map") and not trusted:
            raise ValueError(_foreign(str(path)))
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _PICKLES)
    if pickles and not any((folder / name).exists() for name in (_WEIGHTS, _INDEX)):
        raise ValueError(f"{folder} has its weights in {pickles[0]}, not in {_WEIGHTS}: {_CONVERT}")
    return facts


def read_weights(folder: Path, facts: Mapping[str, Any]) -> Weights:
    """Return the tensors that the headers of the directory's files list; no tensor is read.

    Raises ValueError that names the file if it is missing, cut, or has a false header, and if the configuration
    ``facts`` has more blocks than there are tensors.
    """
    found = Weights({}, {}, {})
    for path in _files(folder):
        for name, shape, kind in _header(path):
            if name in found.shapes:
                raise ValueError(
                    f"{path} contains {name}, and so does {found.files[name]}; get a fresh copy of the checkpoint"
                )
            found.shapes[name], found.types[name], found.files[name] = shape, kind, path
    if not found.shapes:
        raise ValueError(f"{folder} contains no tensors in its safetensors files; get a fresh copy of the checkpoint")
    blocks = next((facts[key] for key in LAYER_KEYS if isinstance(facts.get(key), int)), 0)
    if blocks > len(found.shapes):
        raise ValueError(
            f"{folder / CONFIG} says {blocks} blocks, but the weights are only {len(found.shapes)} tensors; "
            "get a fresh copy of the checkpoint"
        )
    return found


def _files(folder: Path) -> list[Path]:
    """Return the weight files as transformers finds them: one file, else the files of the index."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if not (folder / _INDEX).is_file():
        raise ValueError(
            f"{folder} contains no weights: {_WEIGHTS}, or {_INDEX} with the files that it names, is missing"
        )
    named = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{folder / _INDEX} has no weight_map; get a fresh copy of the checkpoint")
    files = []
    for name in dict.fromkeys(map(str, named.values())):
        if Path(name).name != name or not name.endswith(_SUFFIX) or "\0" in name:
            raise ValueError(f"{folder / _INDEX} names {name!r}, which is not a {_SUFFIX} file beside it: {_CONVERT}")
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing, but {_INDEX} names it; get a fresh copy of the checkpoint")
        files.append(folder / name)
    return files


def _header(path: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield name, shape and type of every tensor; the library compares all sizes with the file's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - this is not a mapping
                part = tensors.get_slice(name)
                yield name, tuple(part.get_shape()), part.get_dtype()
    except (SafetensorError, OSError, UnicodeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} is not a complete safetensors file ({reason}); get a fresh copy of the checkpoint"
        ) from error


def _method(quantization: object) -> str:
    """Return the method that quantized the weights, as far as a configuration names it."""
    if not isinstance(quantization, Mapping):
        return "method not named"
    if name := quantization.get("quant_method"):
        return _short(str(name)).strip("'")
    return "bitsandbytes" if any(key.startswith("load_in_") for key in quantization) else "method not named"


def _dequantize(where: str, method: str) -> str:
    return f"{where} says that the model is quantized ({method}): give a dequantized copy with floating-point weights"


def _foreign(where: str) -> str:
    return (
        f"{where} names custom Python code (auto_map), which is not run by default: give model.trust_remote_code=true "
        "if you have read and trust it, or a copy of the directory without auto_map"
    )


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**18 else f"{float(value):.0e}"
    return text if len(text) <= 40 else f"{text[:40]}…"
