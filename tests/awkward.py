"""Tables that are awkward to draw: one variant, thirty, few layers and many, and long names."""

from __future__ import annotations

from pathlib import Path

import figure_tables as made
import pandas as pd
import pytest
from figure_tables import fill, second_model

from pipeline.config.choices import choices_of
from pipeline.evaluate.comparison import MEAN
from pipeline.store.integrity import digest
from pipeline.tables.variants import DENSE

PAIRS = (("shortgpt", "0.2"), ("shortgpt", "0.4"), ("wanda", "0.2"), ("wanda", "0.4"))
MIXED = (*PAIRS, ("attn_drop", "8"), ("mlp_drop", "8"), ("rtn", "0"), ("divergence", "8"), ("divergence_estimate", "8"))
WEIGHTS = ("wanda", "sparsegpt", "magnitude", "weights", "ria", "dsnot")
LONG = "a-language-model-of-someone-with-a-very-long-name-7B-instruct-v0.3"
INPUTS = ("one variant", "thirty variants", "4 layers", "80 layers", "long names")


def awkward(kind: str, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tables of one of `INPUTS`."""
    if kind == "one variant":
        return fill(outputs, [("attn_drop", "8")], layers=6)
    if kind == "thirty variants":
        names = [name for name in choices_of("pruner") if name != DENSE]
        for name in names:
            monkeypatch.setitem(made.UNITS, name, _unit(name))
        return second_model(fill(outputs, [(name, _sparsity(name)) for name in names], layers=3), "other-lm")
    if kind == "long names":
        return _lengthened(second_model(fill(outputs, MIXED, layers=5), f"another-{LONG}"))
    return fill(outputs, PAIRS, layers=int(kind.split(maxsplit=1)[0]))


def _sparsity(pruner: str) -> str:
    if pruner in ("awq", "rtn"):
        return "0"
    return "0.4" if any(word in pruner for word in WEIGHTS) else "8"


def _unit(pruner: str) -> str:
    if _sparsity(pruner) != "8":
        return "weight"
    words = {"mlp": "mlp", "block": "block", "shortgpt": "block", "contiguous": "block", "joint": "sublayer"}
    return next((unit for word, unit in words.items() if word in pruner), "attention")


def _lengthened(outputs: Path) -> Path:
    """Give the model and all tasks long names, and a pruner another variant with options."""
    for path in (outputs / "tables").glob("*.parquet"):
        frame = pd.read_parquet(path)
        theirs = frame[(frame["pruner"] == "wanda") & (frame["model"] == made.MODEL)]
        theirs = theirs.assign(
            pruner_options='{"an_option_with_a_long_name": 0.000123456}', job=theirs["job"] + " long"
        )
        frame = pd.concat([frame, theirs.assign(variant_id=(theirs["variant_id"] + "long").map(digest))])
        if "task" in frame:
            frame["task"] = frame["task"].map(
                lambda name: name if name == MEAN else f"mmlu_pro_of_professional_{name}_generative"
            )
        mine = frame["model"] == made.MODEL
        frame.assign(
            model=frame["model"].mask(mine, LONG), model_id=frame["model_id"].mask(mine, digest(LONG))
        ).to_parquet(path)
    return outputs
