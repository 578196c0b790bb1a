"""The science, on the embedded language model: it loads, solves the matched items, and loses generation first."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from helpers import json_lines
from naive import DEVIATIONS

from pipeline.capture import capture_trajectory
from pipeline.models.base import load_pretrained, load_tokenizer
from pipeline.probes import PROBES
from pipeline.stages import Workbench
from pipeline.store import Store

pytestmark = pytest.mark.real_model

BASE = (
    "model=smollm2",
    "task.limit=8",
    "task.families=[copying,negation,plurals]",
    "calibration.sequences=8",
    "calibration.length=256",
    "wandb.mode=disabled",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield tmp_path_factory.mktemp("real")
    torch.set_num_threads(threads)


@pytest.fixture
def bench(make_settings, root):
    def make(*overrides: str) -> Workbench:
        settings = make_settings(*overrides, outputs=root, base=BASE)
        return Workbench(settings, Store(root))

    return make


def scores(bench: Workbench) -> pd.Series:
    return pd.read_parquet(bench.evaluation.file("scores.parquet")).groupby("kind")["value"].mean()


def test_the_converted_checkpoint_is_a_stock_one_and_converted_once(bench):
    dense = bench("pruner=dense")
    source = dense.settings.model
    checkpoint = source.checkpoint(dense.store)
    assert checkpoint.file("model.safetensors").is_file()
    assert not source.checkpoint(dense.store).built
    model = load_pretrained(str(checkpoint.path), torch.float32)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    tokenizer = load_tokenizer(str(checkpoint.path))
    assert tokenizer.decode(tokenizer("The capital of France is Paris.").input_ids) == "The capital of France is Paris."
    probe = next(probe for probe in PROBES if probe.name == "open-2")
    text = "".join(capture_trajectory(model, tokenizer, [probe], 20, residual=False).texts[0])
    assert "light" in text or "sky" in text


def test_dense_solves_both_forms_and_generation_is_lost_first(bench):
    dense = scores(bench("pruner=dense"))
    assert dense["generative"] >= 0.8
    assert dense["multiple_choice"] >= 0.9
    dropped = scores(bench("pruner=attn_drop", "sparsity=8"))
    assert dense["generative"] - dropped["generative"] > 0.3
    assert dense["multiple_choice"] - dropped["multiple_choice"] < 0.1


@pytest.mark.parametrize("pruner", ["shortgpt", "wanda"])
def test_sparsity_zero_deviates_nowhere_in_any_layer(bench, tmp_path, pruner):
    probes = tmp_path / "probes.jsonl"
    choice = {"text": "Which of these is a mammal?", "options": ["Salmon", "Dolphin"]}
    probes.write_bytes(json_lines(choice, {"text": "Explain to a child why the sky looks blue."}))
    zero = bench(f"pruner={pruner}", "sparsity=0", "capture.steps=3", f"probes={probes}", "capture.option_items=0")
    measures = pd.read_parquet(zero.measures.file("measures.parquet"))
    assert set(measures.protocol) == {"layer", "teacher_forced", "free_running"}
    assert measures[measures.protocol == "layer"].groupby(["layer", "sublayer"]).ngroups == 60
    for name in DEVIATIONS:
        assert (measures[name] == (1.0 if "cos" in name else 0.0)).all(), name
    options = pd.read_parquet(zero.measures.file("options.parquet"))
    assert set(options.kl) == set(options.flip) == {0.0}
