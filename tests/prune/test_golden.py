"""Parity with recorded outputs of the authors' public code (directory in the environment variable GOLDEN)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from places import ROOT
from safetensors.torch import load_file

from pipeline.config.sparsity import parse
from pipeline.measure.measures import compare
from pipeline.model.head import Head
from pipeline.prune.methods.hessian import DAMPING, Moments
from pipeline.prune.methods.masks import per_matrix, per_output
from pipeline.prune.methods.sparsegpt import compensate, factorise
from pipeline.prune.methods.wanda import column_energy, metric

GOLDEN = Path(os.environ.get("GOLDEN", ROOT.parent / "shared" / "golden"))
CASES = ("square", "wide", "dead_columns")
PATTERNS = ("0.5", "0.29", "2:4", "4:8")


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    if not GOLDEN.is_dir() and "GOLDEN" not in os.environ:
        pytest.skip(f"no golden data in {GOLDEN}; set GOLDEN to its directory")
    return load_file(GOLDEN / "reference.safetensors")


@pytest.fixture(scope="module")
def measures(tensors) -> dict[str, dict]:
    return json.loads((GOLDEN / "reference.json").read_text())["measures"]


def _energy(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([column_energy(sequence) for sequence in x]).sum(0) / len(x)


@pytest.mark.parametrize("case", CASES)
def test_wanda_activation_statistics(tensors, case):
    expected = tensors[f"{case}.wanda.scaler"]
    torch.testing.assert_close(_energy(tensors[f"{case}.X"]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_wanda_masks(tensors, case, pattern):
    key = f"{case}.wanda.{pattern}.pruned"
    weight = tensors[f"{case}.W"]
    if key not in tensors:
        with pytest.raises(ValueError, match="needs a multiple"):
            per_output(weight, parse(pattern))
        return
    mask = per_output(metric(weight, _energy(tensors[f"{case}.X"])), parse(pattern))
    assert torch.equal(mask, tensors[key].bool())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_magnitude_masks(tensors, case, pattern):
    key = f"{case}.magnitude.{pattern}.pruned"
    weight, sparsity = tensors[f"{case}.W"], parse(pattern)
    if key not in tensors:
        with pytest.raises(ValueError, match="needs a multiple"):
            per_matrix(weight.abs(), sparsity)
        return
    assert torch.equal(per_matrix(weight.abs(), sparsity, inclusive=True), tensors[key].bool())
    if sparsity.kind == "fraction":
        exact = per_matrix(weight.abs(), sparsity)
        assert int(exact.sum()) == int(weight.numel() * sparsity.fraction)
        assert not (exact & ~tensors[key].bool()).any()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_sparsegpt_masks_and_weights(tensors, case, pattern):
    key = f"{case}.sparsegpt.{pattern}.W"
    weight, sparsity = tensors[f"{case}.W"], parse(pattern)
    moments = Moments(weight.shape[1], weight.device)
    for sequence in tensors[f"{case}.X"]:
        moments.add(sequence)
    factor, dead, damping = factorise(moments.hessian(len(tensors[f"{case}.X"])))
    assert damping == DAMPING
    assert dead.tolist() == [case == "dead_columns" and j < 5 for j in range(weight.shape[1])]
    if key not in tensors:
        with pytest.raises(ValueError, match="needs a multiple"):
            compensate(weight, factor, dead, sparsity)
        return
    expected = tensors[key]
    found, mask = compensate(weight, factor, dead, sparsity, inclusive=True)
    assert torch.equal(mask, expected == 0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if sparsity.kind == "fraction":
        _, exact = compensate(weight, factor, dead, sparsity)
        assert int(exact.sum()) == int(weight.numel() * sparsity.fraction)


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_measures(tensors, measures, case, dtype):
    facts = measures[str(case)]
    exact, temperature = facts["exact"], facts["temperature"]
    h, h2, weight = (tensors[f"measures.{case}.{name}"].to(dtype) for name in ("h", "h2", "W"))
    table = compare(h, h2, Head(weight), [temperature])
    # Golden magnitudes are unsquared; golden estimates are of the deviation, ours of the cosine itself.
    ours = {
        "cos_h": table.cos_h,
        "cos_z": table.cos_z,
        "cos_p": table.cos_p,
        "kl": table.kl,
        "kl_estimate": table.est_kl,
        "angular_p_estimate": 1 - table.est_cos_p,
        "angular_h_estimate": 1 - table.est_cos_h,
        "angular_z_estimate": 1 - table.est_cos_z,
        "orth_h": table.orth_h**0.5,
        "orth_z": table.orth_z**0.5,
        "par_h": table.par_h**0.5,
        "par_z": table.par_z**0.5,
        "uniform_var": table.var_uniform,
    }
    assert set(exact) <= set(ours)
    tolerance = 2e-5 if dtype is torch.float32 else 1e-9
    for name, expected in exact.items():
        torch.testing.assert_close(
            torch.tensor(ours[name].to_numpy()),
            torch.tensor(expected, dtype=torch.float64),
            rtol=tolerance,
            atol=tolerance * 1e-4,
            msg=lambda text, name=name: f"{name}: {text}",
        )
