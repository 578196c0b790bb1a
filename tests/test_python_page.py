"""What the page on the Python interface and its notebook show: every example runs."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbclient import NotebookClient
from places import ROOT

from pipeline import api
from pipeline.run.job import run_job

PAGE = ROOT / "docs" / "python.md"
NOTEBOOK = ROOT / "docs" / "notebooks" / "prune_and_measure.ipynb"
# In the place of the cell that loads the embedded model, which takes long.
TINY = """
from transformers import AutoModelForCausalLM, AutoTokenizer
import torch

model, tokenizer = AutoModelForCausalLM.from_pretrained({0!r}), AutoTokenizer.from_pretrained({0!r})
"""


@pytest.fixture
def checkpoint(make_model, tokenizer, tmp_path):
    """A folder with a tiny model of seven blocks."""
    folder = tmp_path / "model"
    make_model(layers=7).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_examples_of_the_page_run_in_order(checkpoint, make_settings, tmp_path, monkeypatch):
    run_job(make_settings("pruner=magnitude", "sparsity=0.5", "stages=[prune,evaluate]"), "test", tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(block.replace('"DIR"', repr(str(checkpoint))), namespace)
    assert len(blocks) > 8 and len(namespace["scores"]) > 0


def test_every_function_of_the_interface_is_on_the_page_and_has_an_example():
    page = PAGE.read_text(encoding="utf-8")
    functions = [name for name in api.__all__ if name[0].islower()]
    assert [name for name in functions if f"`{name}(" not in page] == []
    assert [name for name in functions if f"{name}(" not in str(getattr(api, name).__doc__)] == []


@pytest.mark.rotated("notebook")
def test_the_notebook_runs_from_top_to_bottom(checkpoint):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    for cell in notebook.cells:
        if "model" in cell.metadata.get("tags", ()):
            cell.source = TINY.format(str(checkpoint))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    told = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "dense: " in told and "pruned: " in told
