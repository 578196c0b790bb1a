"""The formulas of the authors' public scripts, written out, on recorded and on captured states: docs/formulas.md."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from helpers import changes_of
from places import ROOT
from safetensors.torch import load_file

from pipeline.config.probes import PROBES
from pipeline.measure.measures import compare
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.trajectory import capture_forced, capture_trajectory
from pipeline.prune.surgery import change_weights
from pipeline.study.findings.formulas import public_scripts

GOLDEN = Path(os.environ.get("GOLDEN", ROOT.parent / "shared" / "golden"))
STEPS = 6


def printed(name: str, found: dict[str, torch.Tensor]) -> float:
    """A line of the scripts' output from the values per position."""
    space = name[0]
    if name.endswith("(mean)"):
        return float((found[f"{space}_para"] / found[f"{space}_orth"]).mean())
    if name.endswith("(median)"):
        return float((found[f"{space}_para"] / found[f"{space}_orth"]).median())  # the lower one of two
    if name.endswith("ratio_of_means"):
        return float(found[f"{space}_para"].mean() / found[f"{space}_orth"].mean())
    return float(found[name].mean())


@pytest.mark.parametrize("case", range(5))
def test_formulas_give_what_the_scripts_printed(case: int) -> None:
    if not GOLDEN.is_dir() and "GOLDEN" not in os.environ:
        pytest.skip(f"no golden data in {GOLDEN}; set GOLDEN to its directory")
    tensors = load_file(GOLDEN / "reference.safetensors")
    facts = json.loads((GOLDEN / "reference.json").read_text())["measures"][str(case)]
    h, h2, weight = (tensors[f"measures.{case}.{name}"].double() for name in ("h", "h2", "W"))
    found = public_scripts(h, h2, weight, facts["temperature"])
    for name, expected in facts["reference_batch_mean"].items():
        # Similarities are printed with four digits, the others with six.
        digits = 4 if name.endswith(" sim") else 6
        room = 0.5 * 10**-digits + 1e-6 * max(1.0, abs(expected))
        assert printed(name, found) == pytest.approx(expected, rel=0, abs=room), name
    assert_ours(h, h2, weight, facts["temperature"], found)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_formulas_agree_with_our_columns_on_captured_states(make_model, tokenizer, temperature: float) -> None:
    model, other = make_model("llama", 4), make_model("llama", 4)
    trajectory = capture_trajectory(model, tokenizer, PROBES[::3], STEPS, residual=False)
    for change in changes_of(other, 0.5).values():
        change_weights(other, change)
    weight = Decoder(model).head.weight.detach()
    dense, pruned = (states.double() for states in (trajectory.final, capture_forced(other, trajectory)))
    found = public_scripts(dense, pruned, weight.double(), temperature)
    assert float(found["REAL_KL"].mean()) > 1e-6
    assert_ours(dense, pruned, weight.double(), temperature, found)


def assert_ours(
    h: torch.Tensor, h2: torch.Tensor, weight: torch.Tensor, temperature: float, found: dict[str, torch.Tensor]
) -> None:
    ours, swapped = (compare(*states, Head(weight), [temperature]) for states in ((h, h2), (h2, h)))
    pairs = {
        "emb sim": ours.cos_h,
        "head sim": ours.cos_z,
        "vocab sim": ours.cos_p,
        "REAL_KL": ours.kl,
        "layer-wise KL": ours.kl_reverse,
        "KL_estimate": ours.est_kl,
        "REAL(1-cos)": 1 - ours.cos_p,
        "1-cos_estimate": 1 - ours.est_cos_p,
        "Uniform_Var": ours.var_uniform,
        "Z_real(1-cos)": 1 - ours.cos_z,
        "H_real(1-cos)": 1 - ours.cos_h,
        # Along the pruned state: the two models swapped, and the root of what we square.
        "Z_para_rel": swapped.par_z**0.5,
        "Z_orth_rel": swapped.orth_z**0.5,
        "H_para_rel": swapped.par_h**0.5,
        "H_orth_rel": swapped.orth_h**0.5,
    }
    for name, column in pairs.items():
        assert column.to_numpy() == pytest.approx(found[name].numpy(), rel=1e-5, abs=1e-12), name
    assert swapped.kl.to_numpy() == pytest.approx(ours.kl_reverse.to_numpy(), rel=1e-7)
