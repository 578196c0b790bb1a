"""Checks for values that no key of the configuration takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.check.words import shortened
from pipeline.config.schema import GROUPS, NODES

# Integers of this size and beyond do not fit where they are used.
_LARGEST = 2**63
# Keys that begin and end like this, such as _target_, would make Hydra call what they name.
_RESERVED = "_"


def value_problems(plain: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each value of one resolved configuration that cannot be meant."""
    found = []
    for key, value in plain.items():
        # A choice's own _target_ comes from its YAML file; values below it may not have one.
        parts = value.items() if key in (*GROUPS, *NODES) and isinstance(value, Mapping) else [("", value)]
        for name, item in parts:
            where = f"{key}.{name}" if name else key
            found += [f"{where}={shortened(item)} {trouble}" for trouble in dict.fromkeys(_troubles(item))]
    return found + (_random_model(plain["model"]) if isinstance(plain["model"], Mapping) else [])


def _random_model(model: Mapping[str, Any]) -> list[str]:
    """Check the sizes of a random model: its rotary embedding rotates pairs of a head's dimensions."""
    hidden, heads = model.get("hidden"), model.get("heads")
    if not (isinstance(hidden, int) and isinstance(heads, int) and heads >= 1 and hidden % (2 * heads)):
        return []
    fitting = f"such as {shortened(16 * heads)}"
    return [f"model.hidden={hidden} should be a multiple of twice model.heads={heads}, {fitting}"]


def _troubles(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and key.startswith(_RESERVED) and key.endswith(_RESERVED):
                yield f"contains the key {key}, which only YAML files in conf/ may set; remove it"
            yield from _troubles(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _troubles(item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield "must be a finite number"
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        yield "is too large; give a smaller number"
    elif isinstance(value, str):
        if "\0" in value:
            yield "contains a NUL character; remove it"
        elif not _writable(value):
            yield "is not valid UTF-8; write it in UTF-8"


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
