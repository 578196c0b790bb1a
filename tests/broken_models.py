"""Checkpoints of a tiny model, to be spoiled, and what has to become of them."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.model.sources.hub import AnyHubModel
from pipeline.model.sources.random import RandomModel
from pipeline.store.artifacts import Store

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def examples(few: int) -> int:
    """How many examples a property is tried on: ten times as many if the environment asks for a thorough run."""
    return 10 * few if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else few


def save(folder: Path, architecture: str = "llama") -> Path:
    source, store = RandomModel("random", architecture=architecture, layers=2, hidden=16), Store(folder / "unused")
    source.load(torch.float32, store).save_pretrained(folder)
    source.tokenizer(store).save_pretrained(folder)
    return folder


def load(folder: Path, **options: bool) -> torch.nn.Module:
    source, store = AnyHubModel("m", path=str(folder), **options), Store(folder.parent / "outputs")
    source.tokenizer(store)
    return source.load(torch.float32, store)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def change_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def reason(folder: Path) -> str:
    """Why a directory is refused: one sentence that says where it is."""
    with pytest.raises(ValueError) as caught:
        load(folder)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message
    return message


def loads_or_says_why(folder: Path) -> None:
    """A directory gives a model, or one sentence that says where it is."""
    try:
        assert load(folder).num_parameters() > 0
    except ValueError as error:
        assert str(folder) in str(error) and "\n" not in str(error)


def ends(work: Callable[..., object], *args: object) -> bool:
    """Whether a call comes to an end, without an error, in a process of its own that is not waited for in vain."""
    child = multiprocessing.get_context("fork").Process(target=work, args=args)
    child.start()
    child.join(60)
    child.kill()
    child.join()
    return child.exitcode == 0
