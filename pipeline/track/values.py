"""Plain values for W&B: a nested config without secrets, keys that it can plot, and numbers that survive JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pipeline.common.secrets import redacted

# A class that a configuration names; its component has a name of its own.
_TARGET = "_target_"


def nested(config: Mapping[str, object]) -> dict[str, Any]:
    """Return a config as W&B filters and groups by it: one level per dot, JSON values, other objects as their text.

    ``_target_`` is left out. Secrets are hidden: see ``pipeline.common.secrets``.
    """
    tree: dict[str, Any] = {}
    for key, value in config.items():
        *path, name = str(key).split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        if isinstance(value, Mapping):
            node[name] = {**node.get(name, {}), **nested(value)}
        elif name != _TARGET:
            node[name] = _plain(value)
    found: dict[str, Any] = redacted(tree)
    return found


def key_of(words: str) -> str:
    """Return words as part of a key: W&B plots no key with dots, and sorts by no key with spaces or signs."""
    return re.sub(r"\W+", "_", words).strip("_")


def number(value: Any) -> float | int | str:
    """Return a real number, numpy's included, as Python's; NaN and infinities as text, as W&B writes them.

    Raises TypeError for anything else.
    """
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"{value!r} is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def brief(error: BaseException) -> str:
    """Return an exception as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _plain(value: object) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    try:
        return number(value)
    except (TypeError, ValueError):
        return str(value)
