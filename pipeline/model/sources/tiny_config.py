"""Tiny configurations of any type of causal model, derived from the default configuration of the type."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

from pipeline.model.sources.tiny_fields import DEPTH, Scale, small

# Fields that every configuration has and that say nothing about the model's form.
_COMMON = {field.name for field in dataclasses.fields(PretrainedConfig)} - {"per_layer_config"}


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a tiny configuration is; ``layers`` None keeps the default number of blocks."""

    layers: int | None
    hidden: int
    heads: int
    vocabulary: int
    seed: str


def depth(config: PretrainedConfig) -> int:
    """Return the number of blocks of a configuration; 0 where it names none."""
    return next((value for name, value in vars(config).items() if DEPTH.match(name) and isinstance(value, int)), 0)


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
    class, except for lists of kinds of blocks: of those the first block of every kind is kept, in turn.
    """
    blocks = size.layers or depth(default)
    chosen = list(range(blocks)) if size.layers is None else _in_turn(kinds(default), blocks)
    scale = Scale(default, size.hidden, size.heads, size.vocabulary, blocks, size.seed)
    lists, values = patterns(default), {}
    for field in dataclasses.fields(default):
        value = vars(default).get(field.name, getattr(type(default), field.name, None))
        if field.name in _COMMON or field.name.startswith("_"):
            continue
        if isinstance(value, PretrainedConfig):
            values[field.name] = reduced(value, dataclasses.replace(size, seed=f"{size.seed} {field.name}"))
        elif field.name in lists:
            entries = [lists[field.name][block] for block in chosen]
            values[field.name] = [small(field.name, entry, scale, True) for entry in entries]
        elif value is not None and _default(field) is None:
            continue
        elif isinstance(value, list | tuple) and _indices(value) and max(value) < depth(default):
            values[field.name] = [block for block in value if block < blocks]
        else:
            values[field.name] = small(field.name, copy.deepcopy(value), scale, field.type in (int, "int"))
    overrides = _overrides(default)
    if overrides:
        values["per_layer_config"] = {
            block: small("", overrides[source], scale) for block, source in enumerate(chosen) if source in overrides
        }
    return type(default)(**values)


def _in_turn(first: list[int], blocks: int) -> list[int]:
    return [first[block % len(first)] for block in range(blocks)] if first else []


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def default_config(kind: str) -> PretrainedConfig:
    """Return the default configuration of a type."""
    return CONFIG_MAPPING[kind]()
