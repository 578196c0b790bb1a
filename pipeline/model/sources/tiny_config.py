"""Tiny configurations of any type of causal model, derived from the default configuration of the type."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, PretrainedConfig

from pipeline.model.sources.tiny_fields import DEPTH, Scale, multiplies, small, width

_HALF = ["linear_attention", "full_attention"]
_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
# What the default configuration of a type lacks, and no rule can know.
_HINTS: dict[str, dict[str, Any]] = {
    # The kinds of blocks have no default, or one with no attention at all, which the class cannot run.
    "lfm2": {"layer_types": ["conv", "full_attention"] * 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "granitemoehybrid": {"layer_types": _HALF * 16},
    "bamba": {"attn_layer_indices": [1]},
    # The classes read rotary frequencies that the default does not give.
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 20,
        "rope_parameters": {"sliding_attention": _ROTARY, "full_attention": _ROTARY},
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0}},
    # The cache asks for a number of blocks, which the configuration gives for its parts only.
    "blt": {"num_hidden_layers": 2},
    # Its adapters need a language.
    "xmod": {"default_language": "en_XX"},
    # Its class is causal with this only.
    "xlnet": {"attn_type": "uni"},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    # Its hashes are drawn anew in every call without a seed; the product of the shape is the longest sequence.
    "reformer": {"hash_seed": 0, "axial_pos_shape": [8, 64]},
    # It rounds the widths of queries and values up to 64 in one place and not in another.
    "xlstm": {"qk_dim_factor": 2.0, "v_dim_factor": 2.0},
    # The default of its text part is not allowed.
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
        }
    },
}

# Fields that every configuration has and that say nothing about the model's form.
_COMMON = {field.name for field in dataclasses.fields(PretrainedConfig)} - {"per_layer_config"}


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a tiny configuration is; ``layers`` None keeps the default number of blocks.

    The kinds of blocks take turns in a ``compact`` configuration, otherwise they come as in the first blocks of the
    default. ``reference`` is the hidden size that all widths are compared with. An ``encoder`` reads both ways.
    """

    layers: int | None
    hidden: int
    heads: int
    vocabulary: int
    seed: str
    reference: int | None = None
    compact: bool = True
    encoder: bool = False


def depth(config: PretrainedConfig) -> int:
    """Return the number of blocks of a configuration; 0 where it names none."""
    named = (value for name, value in vars(config).items() if DEPTH.match(name) and isinstance(value, int))
    return next(named, 0) or getattr(config, "num_hidden_layers", 0)


def patterns(config: PretrainedConfig) -> dict[str, list[Any]]:
    """Return the lists of a configuration that have one entry for each block."""
    blocks = depth(config)
    return {
        name: list(value)
        for name, value in vars(config).items()
        if isinstance(value, list | tuple) and len(value) == blocks and not name.startswith("_") and not _indices(value)
    }


def _indices(value: Any) -> bool:
    """Whether a list names blocks by their number."""
    whole = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    return bool(value) and whole and list(value) == sorted(set(value)) and len(value) > 1


def kinds(config: PretrainedConfig) -> list[int]:
    """Return the first block of every kind, told apart by the lists and the overrides of the configuration."""
    lists, overrides = patterns(config), _overrides(config)
    first: dict[str, int] = {}
    for block in range(depth(config)):
        first.setdefault(repr([entries[block] for entries in lists.values()] + [overrides.get(block)]), block)
    return list(first.values())


def _overrides(config: PretrainedConfig) -> dict[int, dict[str, Any]]:
    return {int(block): fields for block, fields in config.to_dict().get("per_layer_config", {}).items()}


def reduced(default: PretrainedConfig, size: Size) -> PretrainedConfig:
    """Build a configuration of the class of ``default`` with small values in all fields.

    A field whose value the class derives from others (None in the class, something else in the object) is left to the
    class, except for lists of kinds of blocks.
    """
    blocks = size.layers or depth(default)
    chosen = (
        list(range(blocks))
        if size.layers is None
        else _in_turn(kinds(default) if size.compact else [*range(depth(default))], blocks)
    )
    reference = size.reference or width(default) or 1024
    scale = Scale(default, reference, size.hidden, size.heads, size.vocabulary, blocks, size.seed, size.encoder)
    lists, plain = patterns(default), vars(_plain(default))
    added = [name for name in vars(default) if name not in plain and not name.startswith("_")]
    values = {name: small(name, vars(default)[name], scale) for name in added}
    for field in dataclasses.fields(default):
        value = vars(default).get(field.name, getattr(type(default), field.name, None))
        if field.name in _COMMON or field.name.startswith("_"):
            continue
        if isinstance(value, PretrainedConfig):
            values[field.name] = reduced(
                value, dataclasses.replace(size, seed=f"{size.seed} {field.name}", reference=reference)
            )
        elif field.name in lists:
            entries = [lists[field.name][block] for block in chosen]
            values[field.name] = [small(field.name, entry, scale, True) for entry in entries]
        elif _runs(value):
            entries = [entry for run, times in value for entry in run * times]
            values[field.name] = [[[entries[block] for block in chosen], 1]]
        elif _default(field) is None and value == plain.get(field.name) and _derived(field.name, value):
            continue
        elif isinstance(value, list | tuple) and _indices(value) and max(value) < depth(default):
            values[field.name] = [block for block in value if block < blocks]
        else:
            values[field.name] = small(field.name, copy.deepcopy(value), scale, _whole(field))
    overrides = _overrides(default)
    if overrides:
        values["per_layer_config"] = {
            block: small("", overrides[source], scale) for block, source in enumerate(chosen) if source in overrides
        }
    return type(default)(**values)


def _plain(default: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration that the class builds from nothing, or what is given where it cannot."""
    try:
        return type(default)()
    except StrictDataclassError:
        return default


def _runs(value: Any) -> bool:
    """Whether a list repeats kinds of blocks: [[["global", "local"], 12]]."""
    if not isinstance(value, list) or not value or not all(isinstance(run, list) and len(run) == 2 for run in value):
        return False
    return all(isinstance(kinds, list) and isinstance(times, int) for kinds, times in value)


def _in_turn(first: list[int], blocks: int) -> list[int]:
    return [first[block % len(first)] for block in range(blocks)] if first else []


def _derived(field: str, value: Any) -> bool:
    """Whether a value that the class has filled in follows from other fields."""
    if multiplies(field, value) or re.search(r"window|_token_id$", field):
        return False
    table = isinstance(value, dict) and all(isinstance(item, int) for item in value.values())
    return value is not None and not table


def _whole(field: dataclasses.Field[Any]) -> bool:
    """Whether a field takes integers and no other numbers."""
    kind = field.type.__name__ if isinstance(field.type, type) else str(field.type)
    return "int" in kind and "float" not in kind


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def default_config(kind: str) -> PretrainedConfig:
    """Return the default configuration of a type."""
    return CONFIG_MAPPING[kind](**_HINTS.get(kind, {}))
