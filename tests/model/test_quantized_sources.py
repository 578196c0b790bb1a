"""Sources that are no plain model are refused by what they are: quantized weights, PEFT adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from broken_models import change, load, reason, save

from pipeline.check.command_line import problems
from pipeline.model.sources.base import load_pretrained

METHODS = {
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
    "awq": {"quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemm"}},
    "fp8": {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
    "compressed-tensors": {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
    "bitsandbytes": {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}},
    "mxfp4": {"quantization_config": {"quant_method": "mxfp4"}},
    "method not named": {"compression_config": {"format": "x"}},
}
FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("intact"))


@pytest.fixture
def model(intact, tmp_path) -> Path:
    """A directory of one's own to change."""
    return Path(shutil.copytree(intact, tmp_path / "model"))


def said_by_the_check(folder: Path) -> str:
    (problem,) = problems(["model=hf", f"model.path={folder}"], multirun=False)
    return problem


@pytest.mark.parametrize("method", METHODS)
def test_a_quantized_checkpoint_is_refused_by_the_name_of_its_method(model, method):
    change(model / "config.json", **METHODS[method])
    expected = f"is quantized ({method}): give a dequantized copy"
    assert expected in reason(model)
    assert expected in said_by_the_check(model)
    with pytest.raises(ValueError, match="dequantized copy"):
        load_pretrained(str(model), torch.float32, trusted=True)


@pytest.mark.parametrize("name", FILES)
def test_so_is_one_of_an_older_tool_that_says_it_in_a_file_beside(model, name):
    (model / name).write_text(json.dumps({"bits": 4}))
    assert f"is quantized ({FILES[name]}): give a dequantized copy" in reason(model)
    assert FILES[name] in said_by_the_check(model)


def test_a_configuration_that_says_no_quantization_loads(model):
    change(model / "config.json", quantization_config=None)
    assert load(model).num_parameters() > 0


def test_a_peft_adapter_is_called_one_and_what_to_do_is_said(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x/y"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    for said in (reason(folder), said_by_the_check(folder)):
        assert "contains a PEFT adapter (adapter_config.json), not a model: merge it first" in said
        assert "no config.json" not in said
