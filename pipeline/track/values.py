"""Plain values for W&B: a flat config without secrets, and numbers that survive JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.common.secrets import redacted


def flatten(config: Mapping[str, object]) -> dict[str, Any]:
    """Return nested mappings as one flat dict with dotted keys and JSON values; other objects become their text.

    Secrets are hidden: see ``pipeline.common.secrets``.
    """
    return {key: redacted(_plain(value), key) for key, value in _leaves(config, "")}


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


def _leaves(config: Mapping[Any, object], prefix: str) -> list[tuple[str, object]]:
    leaves: list[tuple[str, object]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        leaves += _leaves(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return leaves


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
