"""Exported checkpoints are ordinary ones: stock transformers loads them and computes what the pruned model computes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from cases import ENCODERS, FAMILIES
from conftest import TINY
from forked import run_forked
from helpers import SOME_FAMILIES, outputs_of
from safetensors.torch import load_file

from pipeline.check.command_line import problems
from pipeline.export.hf import export, exported
from pipeline.model.decoder import Decoder
from pipeline.prune.checkpoint import as_checkpoint, probe_outputs, write_checkpoint
from pipeline.prune.decision import Change, Decision
from pipeline.prune.stage import PruningDecision
from pipeline.prune.surgery import apply
from pipeline.prune.workbench import Workbench
from pipeline.run.job import run_job
from pipeline.run.job_record import describe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.provenance import origin
from pipeline.store.records import FAILED, OK, load_records

# Runs without this package on its path: only torch, safetensors and transformers.
STOCK = """
import json, sys, torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
assert "pipeline" not in sys.modules
found = {}
ids = torch.randint(0, 250, (2, 10), generator=torch.Generator().manual_seed(7))
for name, folder, encoder in json.load(open(sys.argv[1])):
    model = (AutoModel if encoder else AutoModelForCausalLM).from_pretrained(folder)
    AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        output = model.eval()(ids)
    found[name] = (output.last_hidden_state if encoder else output.logits).contiguous()
save_file(found, sys.argv[2])
"""


def decisions(model: torch.nn.Module) -> dict[str, Decision]:
    """Everything at once; one kind alone only for the first architecture."""
    generator, decoder = torch.Generator().manual_seed(5), Decoder(model)

    def change(layer: int) -> Change:
        names = sorted({w.parameter for w in decoder.linears(layer)})
        shapes = {name: model.get_parameter(name).shape for name in names}
        return Change(
            masks={name: torch.rand(shape, generator=generator) < 0.5 for name, shape in shapes.items()},
            weights={name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()},
        )

    changes = {1: change(1), 3: change(3)}
    # Of every changed block, a sublayer is left.
    together = {"together": Decision(blocks=(0, 2), attention=(3,), mlp=(1,), changes=changes)}
    if decoder.model.config.model_type != "llama":
        return together
    return together | {
        "blocks": Decision(blocks=(0, 2)),
        "attention": Decision(attention=(0, 3)),
        "mlp": Decision(mlp=(1,)),
        "weights": Decision(changes=changes),
    }


def test_stock_transformers_computes_the_same_in_a_fresh_process(tmp_path, make_model, tokenizer):
    jobs, expected = [], {}
    for architecture in FAMILIES:
        if architecture not in (*SOME_FAMILIES, "llama"):
            continue
        for kind, decision in decisions(make_model(architecture)).items():
            pruned, target = make_model(architecture), tmp_path / f"{architecture}-{kind}"
            apply(pruned, decision)
            name = f"{architecture} {kind}"
            expected[name] = outputs_of(pruned)

            def prune(architecture=architecture, decision=decision):
                model = make_model(architecture)
                as_checkpoint(model, decision)
                return model

            write_checkpoint(prune, tokenizer, target, probe_outputs(pruned), lambda folder, off: None)
            jobs.append((name, str(target), architecture in ENCODERS))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", STOCK, str(tmp_path / "jobs.json"), str(tmp_path / "found.safetensors")],
        check=True,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    found = load_file(tmp_path / "found.safetensors")
    assert found.keys() == expected.keys()
    for name, outputs in expected.items():
        torch.testing.assert_close(found[name], outputs, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text)


def test_a_checkpoint_that_computes_something_else_is_not_kept(tmp_path, make_model, tokenizer):
    model = make_model()
    wrong = probe_outputs(model) + 1
    with pytest.raises(ValueError, match="does not compute what the pruned model computes"):
        write_checkpoint(lambda: model, tokenizer, tmp_path / "x" / "export", wrong, lambda folder, off: None)
    assert list((tmp_path / "x").iterdir()) == []


# --- from the command line ------------------------------------------------------------------------------------------


EVALUATED = "stages=[prune,evaluate]"


def one(models: Path, pruner: str) -> Path:
    return next(models.glob(f"*-{pruner}-*"))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    root = tmp_path_factory.mktemp("export")
    words = ("pruner=attn_drop,shortgpt", "sparsity=2", EVALUATED, f"export.path={root / 'models'}")
    done = run_forked("-m", *TINY, f"outputs={root / 'outputs'}", *words)
    return root / "outputs", root / "models", done


def test_a_sweep_exports_each_job_with_its_scores(sweep):
    outputs, models, done = sweep
    assert done.returncode == 0, done.stderr
    assert {path.name[:-7] for path in models.iterdir()} == {"random-llama-attn_drop-2", "random-llama-shortgpt-2"}
    record = next(record for record in load_records(outputs / "jobs") if record.pruner == "attn_drop")
    folder = one(models, "attn_drop")
    facts = json.loads((folder / "pruning.json").read_text())
    assert exported(folder)["job"] == facts["job"] == record.job
    assert facts["output_difference"] < 1e-5
    assert len(facts["decision"]["attention"]) == 2
    assert len(facts["decision"]["scores"]) == 8
    manifest = Artifact(outputs / record.artifacts["decision"], "decision", "").manifest()
    assert facts["provenance"]["decision"]["torch"] == manifest["origin"]["packages"]["torch"]
    assert set(facts["provenance"]) == {"decision", "evaluation", "perplexity", "dense evaluation", "dense perplexity"}
    card = (folder / "README.md").read_text()
    for word in (
        "attn_drop at sparsity 2",
        "Dropped attention sublayers",
        "news 4×32",
        "- decision, evaluation, perplexity, dense evaluation, dense perplexity: ",
    ):
        assert word in card, word
    assert json.loads((one(models, "shortgpt") / "config.json").read_text())["num_hidden_layers"] == 2


def test_the_card_has_the_scores_of_its_job_beside_dense(sweep):
    """Every number, perplexity too, against the table of all jobs."""
    outputs, models, _ = sweep
    scores = pd.read_parquet(outputs / "tables" / "scores.parquet").set_index(["pruner", "task", "kind", "metric"])
    for pruner in ("attn_drop", "shortgpt"):
        card = (one(models, pruner) / "README.md").read_text()
        head, _, *rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("|")]
        assert head[:6] == ["task", "kind", "metric", "dense", "pruned", "difference"]
        assert len(rows) == len(scores.loc[pruner]) > 2
        for task, kind, metric, *numbers in (row[:6] for row in rows):
            dense, pruned = (scores.value[who, task, kind, metric] for who in ("dense", pruner))
            assert numbers == [f"{number:.3f}" for number in (dense, pruned, pruned - dense)]


def test_an_export_tells_what_its_decision_was_made_with(make_settings, tmp_path):
    """The decision was made earlier, with other versions than there are now."""
    settings = make_settings("pruner=attn_drop", "sparsity=2")
    store = Store(settings.outputs)
    store.origin = {"origin": {"commit": "0123456789", "python": "3.10.1", "packages": {"torch": "1.13"}}}
    Workbench(settings, store).make(PruningDecision).manifest()
    store.origin = {"origin": origin()}
    export(Workbench(settings, store), tmp_path / "export", describe(settings), None, None)
    facts = json.loads((tmp_path / "export" / "pruning.json").read_text())
    assert facts["provenance"] == {"decision": {"commit": "0123456", "Python": "3.10.1", "torch": "1.13"}}
    card = (tmp_path / "export" / "README.md").read_text()
    assert "- decision: commit 0123456, Python 3.10.1, torch 1.13\n" in card
    assert torch.__version__ not in card


def test_an_export_is_taken_back_as_dense_and_pruned_further(sweep, make_settings, tmp_path):
    outputs, models, _ = sweep
    folder = one(models, "attn_drop")
    base = ("model=hf", f"model.path={folder}")
    kept = [argument for argument in TINY if not argument.startswith("model=")]
    for pruner in ("dense", "wanda"):
        words = (*base, f"pruner={pruner}", "sparsity=0.5", EVALUATED)
        record = run_job(make_settings(*words, outputs=outputs, base=kept), "taken back", tmp_path)
        assert record.status == OK, record.error
    scores = pd.read_parquet(outputs / "tables" / "scores.parquet")
    before = scores[(scores.model == "random-llama") & (scores.pruner == "attn_drop")]
    after = scores[(scores.model == folder.name) & (scores.pruner == "dense")]
    keys = ["task", "kind"]
    pd.testing.assert_series_equal(before.set_index(keys).value.sort_index(), after.set_index(keys).value.sort_index())


def test_an_export_is_made_once_and_never_replaces_something_else(sweep, make_settings, tmp_path):
    outputs, models, _ = sweep
    folder = one(models, "attn_drop")

    def job(target: Path) -> tuple[str, str | None]:
        words = (EVALUATED, "pruner=attn_drop", "sparsity=2", f"export.path={target}")
        assert problems(words, multirun=False) == []
        record = run_job(make_settings(*words, outputs=outputs), "export", tmp_path)
        return record.status, record.error

    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert job(folder) == (OK, None)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (problem,) = problems([f"export.path={tmp_path / 'mine'}"], multirun=False)
    assert "contains other files; give a new or empty folder" in problem
    (tmp_path / "nested" / "thesis").mkdir(parents=True)
    status, error = job(tmp_path / "nested")
    assert status == FAILED
    assert "is not this pruned model; give another folder" in error
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("architecture", "pruner", "sparsity"),
    [
        ("bert", "wanda", "0.5"),
        ("roberta", "mlp_drop", "1"),
        ("mpnet", "attn_drop", "1"),
        ("modernbert", "shortgpt", "1"),
    ],
)
def test_an_encoder_is_pruned_and_exported(make_settings, tmp_path, architecture, pruner, sparsity):
    target = tmp_path / "encoder"
    job = (f"model.architecture={architecture}", f"pruner={pruner}", f"sparsity={sparsity}")
    job = (*job, "stages=[prune]", f"export.path={target}")
    record = run_job(make_settings(*job), "encoder", tmp_path)
    assert record.status == OK, record.error
    assert (target / "model.safetensors").is_file()
    assert "AutoModel.from_pretrained" in (target / "README.md").read_text()
