"""A run's config as W&B gets it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.track.values import key_of, nested, number


def test_config_is_nested_plain_and_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-12345678")
    config = nested(
        {
            "a.b": 1,
            "a": {"_target_": "some.Class", "c.d": 2},
            "hub": {"token": "t", "eos_token": "</s>", "url": "https://hf-12345678@host"},
            "api_key": None,
            "path": Path("x"),
            "values": (1, {"k": np.float64(2.0)}),
            "limit": math.inf,
        }
    )
    assert config == {
        "a": {"b": 1, "c": {"d": 2}},
        "hub": {"token": "(hidden)", "eos_token": "</s>", "url": "(hidden)"},
        "api_key": None,
        "path": "x",
        "values": [1, {"k": 2.0}],
        "limit": "Infinity",
    }


def test_keys_are_those_that_can_be_plotted() -> None:
    assert [key_of(words) for words in ("multiple choice", "wmt16-en.ro", "gsm8k")] == [
        "multiple_choice",
        "wmt16_en_ro",
        "gsm8k",
    ]


def test_number_takes_reals_alone() -> None:
    assert [number(value) for value in (True, 2, np.float32(0.5), np.int64(3))] == [True, 2, 0.5, 3]
    assert [number(value) for value in (math.nan, math.inf, -math.inf)] == ["NaN", "Infinity", "-Infinity"]
    with pytest.raises(TypeError, match="is not a number"):
        number("1")
