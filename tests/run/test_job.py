"""Single jobs in this process: what their tables hold, and what their settings make of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import json_lines
from naive import DEVIATIONS

from pipeline.common.runs import in_runs
from pipeline.config.probes import PROBES
from pipeline.measure.options import DRAWS, TOP
from pipeline.model.decoder import Decoder
from pipeline.plot.drawing import draw
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply
from pipeline.run.job import run_job
from pipeline.run.job_record import describe
from pipeline.store.artifacts import Store
from pipeline.store.records import OK, JobRecord
from pipeline.tables.job_columns import HOW, IDS, JOB_COLUMNS, WHO

CAPTURE = "stages=[prune,capture,measure]"
OPTION_COLUMNS = ["prompt", "origin", "set", "draw", "temperature", "size", "kl", "kl_reverse", "cos_p"]
OPTION_COLUMNS += ["flip", "mass_dense", "mass_pruned", "rank_dense", "rank_pruned", "margin_dense", "margin_pruned"]
OPTION_COLUMNS += ["correct_dense", "correct_pruned"]
TOKEN_COLUMNS = ["prompt", "origin", "role", "place", "token", "text", "gold"]
TOKEN_COLUMNS += ["logp_dense", "logp_pruned", "rank_dense", "rank_pruned"]
END = [*HOW, *IDS]


@pytest.fixture
def job(make_settings, tmp_path):
    """``job("pruner=wanda", ...)`` runs a tiny job to its good end and gives its record."""

    def run(*overrides: str) -> JobRecord:
        record = run_job(make_settings(*overrides), "test", tmp_path)
        assert record.status == OK, record.error
        return record

    return run


@pytest.fixture
def table(tmp_path):
    return lambda name: pd.read_parquet(tmp_path / "outputs" / "tables" / f"{name}.parquet")


def assert_options_agree(options: pd.DataFrame) -> None:
    """Both models decide alike, on every set of tokens."""
    assert set(options["set"]) == {"vocabulary", "options", "control"}
    assert (options[["kl", "flip"]] == 0).all(axis=None)
    assert (options.cos_p == 1).all()
    for name in ("mass", "rank", "margin", "correct"):
        np.testing.assert_array_equal(options[f"{name}_dense"], options[f"{name}_pruned"])


@pytest.mark.parametrize("pruner", ["wanda", "attn_drop"])
def test_equal_models_sample_equal_texts_and_deviate_nowhere(job, table, pruner):
    job(f"pruner={pruner}", "sparsity=0", CAPTURE, "capture.decoding=sample", "capture.temperature=1.5")
    measures, tokens = table("measures"), table("trajectories")
    assert set(measures.protocol) == {"layer", "teacher_forced", "free_running"}
    for name in DEVIATIONS:
        assert (measures[name] == (1.0 if "cos" in name else 0.0)).all(), name
    np.testing.assert_array_equal(tokens.dense_token, tokens.pruned_token)
    assert_options_agree(table("options"))


def test_samples_depend_on_temperature_and_seed_and_not_on_how_often_they_are_drawn(job, table, make_settings):
    base = ("pruner=wanda", "sparsity=0", CAPTURE, "capture.protocols=[free_running]")
    ways = {
        "greedy": ("capture.decoding=greedy",),
        "again": ("capture.decoding=greedy", "capture.temperature=2"),
        "sampled": ("capture.decoding=sample",),
        "hot": ("capture.decoding=sample", "capture.temperature=2"),
        "other seed": ("capture.decoding=sample", "seed=1"),
    }
    records = {name: job(*base, *how) for name, how in ways.items()}
    tokens = table("trajectories")
    texts = {name: tuple(tokens[tokens.job == record.job].dense_token) for name, record in records.items()}
    assert texts["greedy"] == texts["again"]
    assert len(set(texts.values())) == 4
    # A temperature that greedy decoding does not read makes no new trajectory.
    assert "trajectory" not in records["again"].built
    assert "trajectory" in records["hot"].built


def test_the_options_protocol_alone(job, table, tmp_path):
    """The dense model gives its half; the pruned job adds the tables and no positions of other protocols."""
    only = (CAPTURE, "capture.protocols=[options]")
    dense = job("pruner=dense", *only)
    assert {"dense options", "dense trajectory"} <= dense.artifacts.keys()
    assert not (tmp_path / "outputs" / "tables" / "options.parquet").exists()
    pruned = job("pruner=mlp_drop", "sparsity=2", *only)
    assert set(pruned.built) & {"options", "measures"} == {"options", "measures"}
    assert "teacher_forced" not in pruned.built
    assert not (tmp_path / "outputs" / "tables" / "measures.parquet").exists()
    assert not (tmp_path / "outputs" / "tables" / "trajectories.parquet").exists()
    assert (table("options").job == pruned.job).all()


def test_options_and_prompts_tables(job, table):
    record = job("pruner=mlp_drop", "sparsity=2", CAPTURE, "measure.temperatures=[1.0,0.5]", "capture.option_items=3")
    options, tokens, prompts = table("options"), table("option_tokens"), table("prompts")
    first, last = len(WHO), -len(END)
    assert [*options.columns[:first], *sorted(options.columns[first:last])] == [*WHO, *sorted(OPTION_COLUMNS)]
    assert [*options.columns[last:]] == END
    assert [*tokens.columns] == [*WHO, *TOKEN_COLUMNS, *END]
    assert [*prompts.columns] == [*WHO, "prompt", "format", "steps", "text", *END]
    assert all((frame.settings_id == record.settings_id).all() for frame in (options, tokens, prompts))
    assert list(prompts.text) == [probe.prompt for probe in PROBES]
    # Items whose answers begin with the same byte are not decided at one step: they are left out.
    assert {"probe", "plurals"} <= set(options.origin) <= {"probe", "plurals", "copying"}
    counts = options.groupby(["prompt", "set"]).size().unstack()
    assert (counts == {"control": 2 * DRAWS, "options": 2, "vocabulary": 2}).all(axis=None)
    assert (options[options["set"] != "vocabulary"].groupby("prompt").size() == 2 * (DRAWS + 1)).all()
    asked = options[options["set"] == "options"]
    assert (asked["size"] == 4).all()
    assert set(asked.correct_dense) <= {0.0, 1.0}
    assert (asked.mass_dense.between(0, 1) & (asked.rank_dense >= 0)).all()
    top = tokens[tokens.role == "top"].groupby("prompt")
    assert (top.size() == TOP).all()
    assert top.rank_dense.apply(lambda ranks: list(ranks) == list(range(TOP))).all()
    assert (tokens[tokens.role == "option"].groupby("prompt").gold.sum() == 1).all()
    mass = np.exp(tokens[tokens.role == "option"].logp_dense).groupby(tokens.prompt).sum()
    at_one = asked[asked.temperature == 1.0].set_index("prompt").mass_dense
    np.testing.assert_allclose(mass.sort_index(), at_one.sort_index(), rtol=1e-6)


@pytest.mark.parametrize(
    ("pruner", "sparsity", "unit"),
    [("attn_drop", 2, "attention"), ("shortgpt", 0.5, "block"), ("wanda", "2:4", "weight"), ("dense", 0, "")],
)
def test_jobs_table_counts_the_parameters_that_are_left(job, table, make_settings, pruner, sparsity, unit):
    record = job(f"pruner={pruner}", f"sparsity={sparsity}", "stages=[prune]", "dtype=float32")
    (row,) = table("jobs").to_dict("records")
    assert set(row) >= set(JOB_COLUMNS) and row["status"] == OK
    sent = [cost["forward_tokens"] for name, cost in record.cost.items() if name.startswith("decision/")]
    assert (max(sent) > 0) == (pruner != "dense")
    settings = make_settings()
    store = Store(settings.outputs)
    model = settings.model.load(torch.float32, store)
    whole = sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        # So that the weights that pruning sets to zero are the only ones.
        for parameter in model.parameters():
            parameter[parameter == 0] = 1e-3
    apply(model, Decision.load(store.root / record.artifacts["decision"]))
    left = sum(int((parameter != 0).sum()) for parameter in Decoder(model).model.parameters())
    assert (row["unit"] or "") == unit
    assert (row["parameters"], row["dense_parameters"]) == (left, whole)
    ids = ("settings", "variant_id", "settings_id", "model_id")
    assert [row[name] for name in ids] == [getattr(record, name) for name in ids]


def test_probes_of_a_file_are_what_is_captured(job, table, tmp_path):
    path = tmp_path / "mine.jsonl"
    question = {"text": "Which is red?", "options": ["Grass", "Blood"], "answer": "B", "steps": 2}
    path.write_bytes(json_lines({"text": "Once upon a time", "name": "tale"}, question))
    record = job("pruner=attn_drop", "sparsity=2", CAPTURE, f"probes={path}", "capture.option_items=0")
    prompts = table("prompts").set_index("prompt")
    assert prompts.text.to_dict()["tale"] == "Once upon a time"
    assert prompts.text.to_dict()["prompt-2"].startswith("Which is red?\nA. Grass\nB. Blood\n")
    assert prompts.steps.to_dict() == {"tale": 5, "prompt-2": 2}
    assert set(table("measures").prompt) == set(table("trajectories").prompt) == {"tale", "prompt-2"}
    lengths = table("trajectories").groupby("prompt").step.max() + 1
    assert lengths["prompt-2"] <= 2
    assert lengths["tale"] <= 5
    assert set(table("options").prompt) == {"prompt-2"}
    options = table("option_tokens")[lambda frame: frame.role == "option"]
    assert list(options.text) == [" A", " B"]
    assert list(options.gold) == [False, True]
    assert "2 prompts" in record.settings
    other = job("pruner=attn_drop", "sparsity=2", CAPTURE)
    assert other.settings_id != record.settings_id and other.variant_id == record.variant_id


def test_settings_say_which_special_tokens_stand_in_the_text(job, table):
    record = job("pruner=wanda", "sparsity=0.5", "stages=[prune]")
    assert "no BOS, documents end with <|end|>" in record.settings
    assert list(table("jobs").settings) == [record.settings]


def test_one_item_a_task_has_a_score_and_no_standard_error(job, table):
    job("pruner=wanda", "sparsity=0.5", "stages=[prune,evaluate]", "task.limit=1")
    scores = table("scores")
    scores = scores[scores.kind != "perplexity"]
    assert (scores.n == 1).all()
    assert scores.value.isin([0, 1]).all()
    assert scores.stderr.isna().all()


def test_a_temperature_that_nothing_reads_does_not_part_jobs(make_settings):
    def states(*overrides: str) -> str:
        return describe(make_settings(*overrides)).settings_id

    assert states() == states("capture.temperature=0.5")
    assert states("capture.decoding=sample") != states("capture.decoding=sample", "capture.temperature=0.5")


def test_the_structure_of_the_model_is_kept_with_its_proof(job, tmp_path):
    """Found and proven once for a model and dtype; each job names it beside its decision."""
    first, second = (job(f"pruner={name}", "stages=[prune]") for name in ("wanda", "attn_drop"))
    assert first.artifacts["structure"] == second.artifacts["structure"]
    assert any(name.startswith("structure/") for name in first.cost)
    assert not any(name.startswith("structure/") for name in second.cost)
    kept = json.loads((tmp_path / "outputs" / first.artifacts["structure"] / "structure.json").read_text())
    parts = [[part["kind"] for part in block["parts"]] for block in kept["structure"]["blocks"]]
    assert parts == [["attention", "mlp"]] * 4
    # In bfloat16, equations hold to its rounding; sums of a stream are not exact.
    assert set(kept["errors"]) == {"sums", "without a sublayer", "logits"}
    assert 0 < kept["errors"]["sums"] < 1e-2 and max(kept["errors"].values()) < 1e-2 and kept["unvisited"] == {}


@pytest.mark.usefixtures("no_pictures")
def test_what_mixes_tokens_without_attention_is_named_in_decision_table_and_figure(job, table, tmp_path):
    """Every other block of this type has linear attention, which the pruners of attention drop."""
    record = job("model.architecture=qwen3_next", "pruner=attn_drop", "sparsity=2", CAPTURE)
    kept = json.loads((tmp_path / "outputs" / record.artifacts["structure"] / "structure.json").read_text())
    parts = [block["parts"][0] for block in kept["structure"]["blocks"]]
    mixers = [layer for layer, part in enumerate(parts) if part["mixer"]]
    assert mixers and {part["kind"] for part in parts} == {"attention"}
    decision = Decision.load(tmp_path / "outputs" / record.artifacts["decision"])
    assert list(decision.mixers) == mixers == json.loads(table("jobs")["dropped"][0])["mixers"]
    (figure,) = draw(tmp_path / "outputs", ["fig14_layers_kl"])
    assert f"The attention of layers {in_runs(mixers)} is another mixer of tokens." in figure.caption
