"""A run's config as W&B gets it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.track.values import flatten, number


def test_flatten_hides_keys_and_keeps_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-12345678")
    flat = flatten(
        {
            "a": {"b": {"c": 1}, "empty": {}},
            "hub": {"token": "t", "eos_token": "</s>", "url": "https://hf-12345678@host"},
            "api_key": None,
            "path": Path("x"),
            "values": (1, {"k": np.float64(2.0)}),
            "limit": math.inf,
        }
    )
    assert flat == {
        "a.b.c": 1,
        "hub.token": "(hidden)",
        "hub.eos_token": "</s>",
        "hub.url": "(hidden)",
        "api_key": None,
        "path": "x",
        "values": [1, {"k": 2.0}],
        "limit": "Infinity",
    }


def test_number_takes_reals_alone() -> None:
    assert [number(value) for value in (True, 2, np.float32(0.5), np.int64(3))] == [True, 2, 0.5, 3]
    assert [number(value) for value in (math.nan, math.inf, -math.inf)] == ["NaN", "Infinity", "-Infinity"]
    with pytest.raises(TypeError, match="is not a number"):
        number("1")
