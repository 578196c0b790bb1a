"""Memory of a job: told by a dry run, and refused before anything is pruned."""

from __future__ import annotations

import json

import pytest
import torch
from allocated import allocated
from conftest import TINY
from transformers import LlamaConfig

from pipeline.evaluate.perplexity import HeldOutText, perplexity_row
from pipeline.evaluate.room import reading
from pipeline.model.memory import GIB, Need, skeleton_of
from pipeline.prune.stage import PruningDecision
from pipeline.prune.workbench import Workbench
from pipeline.run import plan_memory, room
from pipeline.run.dry_run import show_plan
from pipeline.run.launchers.memory import Memory
from pipeline.run.room import Work, check_memory
from pipeline.store.artifacts import Store

SEVEN = LlamaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000
)


@pytest.fixture
def seven(tmp_path):
    """A folder with the configuration of a 7B model, and no weights."""
    folder = tmp_path / "seven"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SEVEN.to_dict()), encoding="utf-8")
    return folder


def test_perplexity_takes_what_is_counted(make_model, tokenizer, tmp_path):
    model, file = make_model(), tmp_path / "text.txt"
    file.write_text("A quiet morning by the sea. " * 200, encoding="utf-8")
    text = HeldOutText(str(file), "text", 2000, 256, 128)
    seen = allocated(lambda: perplexity_row(model, tokenizer, text))
    assert reading(skeleton_of(model.config, torch.float32), text).passes == pytest.approx(seen, rel=0.05)


def test_what_does_not_fit_is_said_with_the_keys_to_change():
    work = Work("capturing", "float32", 27 * GIB, (Need(GIB, 2 * GIB), Need(2 * GIB)), ("capture.steps=12",))
    assert work.peak(on_gpu=False) == 30 * GIB and work.peak(on_gpu=True) == 29 * GIB
    assert work.problem(30 * GIB) is None
    assert work.problem(29 * GIB, on_gpu=True) is None
    said = work.problem(24 * GIB)
    assert said is not None and "needs 30 GiB of memory, 27 GiB of them for weights in float32" in said
    assert "give capture.steps=12, model.device_map=auto" in said


def test_a_job_that_cannot_fit_is_refused_before_it_prunes(make_settings, monkeypatch, tmp_path):
    settings = make_settings("pruner=wanda", "sparsity=0.5", "dtype=float32", "task.batch_size=8")
    bench = Workbench(settings, Store(settings.outputs))
    check_memory(bench)
    monkeypatch.setattr(room, "free_memory", lambda device: 2**20)
    with pytest.raises(ValueError, match=r"evaluating needs .* weights in float32.*dtype=bfloat16, task.batch_size=4"):
        check_memory(bench)
    with pytest.raises(ValueError, match=r"capturing needs .*give capture.dtype=bfloat16, capture.steps=2"):
        check_memory(bench)
    assert bench.find(PruningDecision) is None


def test_a_dry_run_tells_the_memory_of_a_large_model_without_its_weights(seven, capsys, monkeypatch, tmp_path):
    words = [*TINY[1:], "model=hf", f"model.path={seven}", f"outputs={tmp_path / 'outputs'}", "dtype=bfloat16"]
    words = [word for word in words if not word.startswith("task.")] + ["pruner=shortgpt", "sparsity=2,4"]
    monkeypatch.setattr(plan_memory, "memory", lambda: Memory(64 * GIB, GIB))
    assert show_plan(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "this machine has 64 GiB" in said
    assert said.count("(weights 12.6 GiB in bfloat16); capturing") == 2
    assert said.count("(weights 25.1 GiB in float32)") == 2
    monkeypatch.setattr(plan_memory, "memory", lambda: Memory(20 * GIB, GIB))
    assert show_plan(words) == 2
    (problem,) = [line for line in capsys.readouterr().err.splitlines() if "capturing needs" in line]
    assert "but there are 20 GiB; give capture.dtype=bfloat16" in problem


def test_a_dry_run_says_where_nothing_can_be_counted(capsys, monkeypatch, tmp_path):
    """A model of the hub that was never downloaded, and one that accelerate spreads."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["model=hf", "model.path=nobody/nothing", f"outputs={tmp_path}", "pruner=shortgpt", "sparsity=2"]
    assert show_plan(words) == 0
    assert "not known: a configuration" in " ".join(capsys.readouterr().out.split())
    assert show_plan([*words, "model.device_map=auto"]) == 0
    assert "spread by model.device_map" in capsys.readouterr().out
