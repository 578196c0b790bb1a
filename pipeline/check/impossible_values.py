"""Checks for values that no key of the configuration takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.check.words import shortened
from pipeline.config.impossible import troubles
from pipeline.config.schema import GROUPS, NODES


def value_problems(plain: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each value of one resolved configuration that cannot be meant."""
    found = []
    for key, value in plain.items():
        # A choice's own _target_ comes from its YAML file; values below it may not have one.
        parts = value.items() if key in (*GROUPS, *NODES) and isinstance(value, Mapping) else [("", value)]
        for name, item in parts:
            where = f"{key}.{name}" if name else key
            found += [f"{where}={shortened(item)} {trouble}" for trouble in dict.fromkeys(troubles(item))]
    return found + (_random_model(plain["model"]) if isinstance(plain["model"], Mapping) else [])


def _random_model(model: Mapping[str, Any]) -> list[str]:
    """Check the sizes of a random model: its rotary embedding rotates pairs of a head's dimensions."""
    hidden, heads = model.get("hidden"), model.get("heads")
    if not (isinstance(hidden, int) and isinstance(heads, int) and heads >= 1 and hidden % (2 * heads)):
        return []
    fitting = f"such as {shortened(16 * heads)}"
    return [f"model.hidden={hidden} should be a multiple of twice model.heads={heads}, {fitting}"]
