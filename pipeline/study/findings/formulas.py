"""Finding of the page of formulas: what the public scripts' formulas and our columns give for the same states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hydra
import torch
from safetensors.torch import load_file

from pipeline.analysis.prompt_means import mean_over_prompts
from pipeline.config.schema import TEACHER_FORCED
from pipeline.model.decoder import Decoder
from pipeline.model.proof import head_of
from pipeline.model.trajectory import Trajectory
from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord
from pipeline.study.findings.demo import source
from pipeline.study.findings.source import NoResults, Values
from pipeline.study.findings.table import Grid
from pipeline.tables.job_tables import JobTables

_ROLES = ("decision", "dense trajectory", "teacher forced", "measures")
# Positions whose logits are in memory at a time, in float64.
_ROWS = 48
# Of the scripts' lines: our column of the same or the nearest quantity, and in what it differs.
_ONE_MINUS, _OTHER = "1 − x", "squared, along the dense state"
LINES = {
    "emb sim": ("cos_h", ""),
    "head sim": ("cos_z", ""),
    "vocab sim": ("cos_p", ""),
    "REAL_KL": ("kl", ""),
    "layer-wise KL": ("kl_reverse", ""),
    "KL_estimate": ("est_kl", ""),
    "1-cos_estimate": ("est_cos_p", _ONE_MINUS),
    "Uniform_Var": ("var_uniform", ""),
    "Z_para_rel": ("par_z", _OTHER),
    "Z_orth_rel": ("orth_z", _OTHER),
    "H_para_rel": ("par_h", _OTHER),
    "H_orth_rel": ("orth_h", _OTHER),
}


def cosine(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Compute the cosines (N,) of rows of (N, D)."""
    return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))


def variance(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Compute the variances (N,) of rows of (N, V) under the weights of each entry."""
    return (weights * x**2).sum(-1) - (weights * x).sum(-1) ** 2


def parts(base: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute what states add along their bases, as a multiple, and the lengths along and across: (N,) each."""
    change = other - base
    along = (change * base).sum(-1, keepdim=True) / (base * base).sum(-1, keepdim=True)
    return along.squeeze(-1), (along * base).norm(dim=-1), (change - along * base).norm(dim=-1)


def public_scripts(h: torch.Tensor, h2: torch.Tensor, weight: torch.Tensor, t: float) -> dict[str, torch.Tensor]:
    """Compute per position what the authors' public scripts print the means of, (N,) each, in the dtype of the states.

    ``h`` and ``h2`` are dense and pruned states (N, D), ``weight`` is (V, D), ``t`` the temperature. Geometry is along
    the pruned state.
    """
    z, z2 = h @ weight.T, h2 @ weight.T
    p, q = torch.softmax(z / t, -1), torch.softmax(z2 / t, -1)
    r = p**2 / (p**2).sum(-1, keepdim=True)
    found = {
        "emb sim": cosine(h, h2),
        "head sim": cosine(z, z2),
        "vocab sim": cosine(p, q),
        "REAL_KL": (p * (p.log() - q.log())).sum(-1),
        "layer-wise KL": (q * (q.log() - p.log())).sum(-1),
        "KL_estimate": variance(p, z2 - z) / (2 * t**2),
        "REAL(1-cos)": 1 - cosine(p, q),
        "1-cos_estimate": variance(r, z2 - z) / (2 * t**2),
        "Uniform_Var": (z2 - z).var(-1, unbiased=False),
    }
    for name, dense, pruned in (("Z", z, z2), ("H", h, h2)):
        along, parallel, across = parts(pruned, dense)
        length = pruned.norm(dim=-1)
        found[f"{name}_real(1-cos)"] = 1 - cosine(dense, pruned)
        found |= {f"{name}_para_rel": parallel / length, f"{name}_orth_rel": across / length}
        found |= {f"{name}_para": parallel, f"{name}_orth": across, f"alpha_{name.lower()}_mean": along}
    return found


def values(jobs: Sequence[JobRecord], store: Store) -> Values:
    """Return a table for each of the demo's jobs at the higher sparsity: the scripts' numbers beside our means.

    The states are the final ones, teacher-forced, at temperature 1.
    """
    chosen = [job for job in jobs if job.sparsity == max(each.sparsity for each in jobs)]
    weight = _head(chosen[0].config, store)
    return {job.pruner: _table(job, store, weight) for job in chosen}


def _head(config: Mapping[str, Any], store: Store) -> torch.Tensor:
    """Return the output projection (V, D) of a job's dense model in float64."""
    told = {key.removeprefix("model."): value for key, value in config.items() if key.startswith("model.")}
    model = hydra.utils.instantiate(told, _convert_="all").load(torch.float32, store)
    head = head_of(Decoder(model))
    return head.weight.detach().double() * head.scale


def _table(job: JobRecord, store: Store, weight: torch.Tensor) -> Grid:
    measures = JobTables(job, store).measures
    if measures is None:
        raise NoResults(f"the job {job.job} has no measures; run `make demo` first")
    own = measures[(measures["protocol"] == TEACHER_FORCED) & (measures["temperature"] == 1)]
    columns = list(dict.fromkeys(column for column, _ in LINES.values()))
    rows, means = own[columns].mean(), mean_over_prompts(own, columns, ["protocol"]).iloc[0]
    dense = Trajectory.load(store.root / job.artifacts["dense trajectory"]).final
    (states,) = load_file(next((store.root / job.artifacts["teacher forced"]).glob("*.safetensors"))).values()
    found = [
        public_scripts(x.double(), y.double(), weight, 1.0)
        for x, y in zip(dense.split(_ROWS), states.split(_ROWS), strict=True)
    ]
    lines = []
    for name, (column, how) in LINES.items():
        scripts = float(torch.cat([each[name] for each in found]).mean())
        ours = [1 - each[column] if how == _ONE_MINUS else each[column] for each in (rows, means)]
        shown = f"`{column}`" + (f", {how}" if how else "")
        lines.append([f"`{name}`", f"{scripts:.4f}", shown, *(f"{value:.4f}" for value in ours)])
    return Grid(["line of the scripts", "mean over rows", "our column", "mean over rows", "mean over prompts"], lines)


SOURCES = {"formulas": source(values, _ROLES)}
