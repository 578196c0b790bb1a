"""Pickles and Python code that come with a model, a text or a task: none of it runs without leave."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from broken_models import INDEX, WEIGHTS, change, load, reason, save
from safetensors.torch import load_file

from pipeline.check.command_line import problems
from pipeline.config.choices import CONF
from pipeline.model.decoder import Decoder
from pipeline.model.sources.base import load_tokenizer
from pipeline.model.sources.hub import HubModel
from pipeline.prune.checkpoint import probe_outputs, write_checkpoint


class Trap:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("intact"))


@pytest.fixture
def model(intact, tmp_path) -> Path:
    """A directory of one's own to spoil."""
    return Path(shutil.copytree(intact, tmp_path / "model"))


def test_no_code_of_ours_reads_a_pickle():
    banned = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    methods = {"read_pickle", "to_pickle", "unsafe_load", "full_load"}
    for path in (CONF.parent / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not banned & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Attribute):
                assert node.attr not in methods, path
                assert ast.unparse(node) != "torch.load", path
            assert not (isinstance(node, ast.keyword) and node.arg == "allow_pickle"), path


def test_pickles_beside_the_weights_are_never_read(model, tmp_path):
    trap = tmp_path / "sprung"
    for name in (
        "pytorch_model.bin",
        "training_args.bin",
        "optimizer.pt",
        "tokenizer.pkl",
        "vocab.bin",
        "scheduler.pt",
    ):
        (model / name).write_bytes(pickle.dumps(Trap(trap)))
    assert load(model).num_parameters() > 0
    assert not trap.exists()
    # The planted file does what it is there for.
    pickle.loads((model / "pytorch_model.bin").read_bytes())
    assert trap.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"])
def test_weights_that_are_only_pickled_are_refused_with_the_way_out(model, tmp_path, name):
    (model / WEIGHTS).unlink()
    (model / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for refused in (problems(["model=hf", f"model.path={model}"], multirun=False), [reason(model)]):
        assert len(refused) == 1
        assert name in refused[0] and "safe_serialization=True" in refused[0]
    assert not (tmp_path / "sprung").exists()


WAYS = {
    "index": "names 'adapter_model.bin', which is not a .safetensors file beside it",
    "transformers_weights": "names other weights",
    "adapter": "contains a PEFT adapter",
}


@pytest.mark.parametrize("way", WAYS)
def test_no_description_leads_to_a_pickle(model, tmp_path, way):
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    if way == "index":
        names = dict.fromkeys(load_file(model / WEIGHTS), "adapter_model.bin")
        (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
        (model / WEIGHTS).unlink()
    elif way == "transformers_weights":
        change(model / "config.json", transformers_weights="adapter_model.bin")
    else:
        (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    assert WAYS[way] in reason(model)
    assert not (tmp_path / "sprung").exists()


# Runs in a process of its own, since the hub's library reads where its files are when it is imported.
FROM_THE_HUB = """
import sys, torch
from pipeline.model.decoder import Decoder
from pipeline.model.sources.hub import HubModel
for name in sys.argv[1:]:
    try:
        HubModel("m", path=name).load(torch.float32, None)
        print(name, "was loaded")
    except ValueError as error:
        print(" ".join(str(error).split()))
"""


@pytest.mark.rotated("code of a model")
def test_a_model_of_the_hub_is_held_to_the_same(model, tmp_path):
    """Downloaded earlier: one with pickled weights that could be read without harm, one with code, one in order."""
    for name in ("pickled", "coded", "plain"):
        place = tmp_path / "hub" / f"models--some--{name}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("abc")
        shutil.copytree(model, place / "snapshots" / "abc")
    snapshot = tmp_path / "hub" / "models--some--pickled" / "snapshots" / "abc"
    torch.save(load_file(snapshot / WEIGHTS), snapshot / "pytorch_model.bin")
    (snapshot / WEIGHTS).unlink()
    change(
        tmp_path / "hub" / "models--some--coded" / "snapshots" / "abc" / "config.json", auto_map={"AutoModel": "x.Y"}
    )
    done = subprocess.run(
        [sys.executable, "-c", FROM_THE_HUB, "some/pickled", "some/coded", "some/plain"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"},
    )
    pickled, coded, plain = done.stdout.splitlines()
    assert pickled.startswith("model some/pickled cannot be loaded; give model.path a directory")
    assert "some/coded/config.json names custom Python code" in coded
    assert plain == "some/plain was loaded"


# --- code that comes with a model --------------------------------------------------------------------------------


def plant_code(model: Path, kind: str = "llama") -> Path:
    """A modeling file that leaves a trace when it is imported; the model is a Llama by another name."""
    trace = model.parent / "ran"
    (model / "own.py").write_text(
        "import os\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        f"os.makedirs({str(trace)!r}, exist_ok=True)\n\n"
        f"class OwnConfig(LlamaConfig):\n    model_type = {kind!r}\n\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change(model / "config.json", model_type=kind, auto_map=names)
    return trace


def test_code_of_a_model_runs_only_with_leave(model, monkeypatch):
    trace = plant_code(model)
    for refused in (problems(["model=hf", f"model.path={model}"], multirun=False), [reason(model)]):
        assert len(refused) == 1
        assert "config.json names custom Python code" in refused[0] and "model.trust_remote_code=true" in refused[0]
    assert not trace.exists()
    words = ["model=hf", f"model.path={model}", "model.trust_remote_code=true"]
    assert problems(words, multirun=False) == []
    assert not trace.exists(), "a check runs nothing"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(model.parent / "modules"))
    assert type(load(model, trust_remote_code=True)).__name__ == "OwnModel"
    assert trace.exists()


def test_an_export_keeps_the_code_that_had_leave(model, monkeypatch, tmp_path):
    plant_code(model)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    own = load(model, trust_remote_code=True)
    tokenizer, target = load_tokenizer(str(model), trusted=True), tmp_path / "export"
    write_checkpoint(lambda: own, tokenizer, target, probe_outputs(own), lambda *_: None)
    assert "model.trust_remote_code=true" in reason(target)
    assert type(load(target, trust_remote_code=True)).__name__ == "OwnModel"


def test_a_model_of_a_type_of_its_own_is_looked_at_like_any_other(model, monkeypatch):
    plant_code(model, "homemade")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(model.parent / "modules"))
    assert problems(["model=hf", f"model.path={model}", "model.trust_remote_code=true"], multirun=False) == []
    structure = Decoder(load(model, trust_remote_code=True)).structure
    assert structure.blocks_name == "model.layers" and structure.chained


def test_code_of_a_tokenizer_runs_only_with_leave(model):
    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.OwnTokenizer", None]})
    with pytest.raises(
        ValueError, match="tokenizer_config.json names custom Python code .*model.trust_remote_code=true"
    ):
        load_tokenizer(str(model))


def test_named_models_have_no_such_leave():
    (found,) = problems(["model=qwen3_4b", "model.trust_remote_code=true"], multirun=False)
    assert "model.trust_remote_code is not a key" in found
    assert not HubModel("m", path="x").trusted
