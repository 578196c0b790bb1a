"""Pages of docs/extending: their files written outside the clone, their commands and scripts carried out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from choice import some
from doc_pages import Page, refusals, run_jobs
from places import ROOT
from transformers import AutoModelForCausalLM

from pipeline.config.search_path import search_also
from pipeline.plot.drawing import draw
from pipeline.prune.decision import Decision
from pipeline.report.__main__ import main as report
from pipeline.results.__main__ import main as results
from pipeline.store.records import JobRecord

# Pages that tests beside what they extend carry out.
ELSEWHERE = ("index", "measure", "figure")
Write = Callable[[str], Page]


@pytest.fixture
def write(tmp_path, monkeypatch) -> Iterator[Write]:
    """``write("pruner")`` gives a page, its folder written outside the clone and importable."""
    monkeypatch.chdir(tmp_path)

    # Drawing all figures takes longer than all the rest.
    def one(outputs, settings, form, processes):
        return draw(outputs, ["fig04"], settings, form=form)

    monkeypatch.setattr("pipeline.report.page.draw", one)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def written(name: str) -> Page:
        page = Page(f"extending/{name}.md")
        page.write(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        return page

    yield written
    search_also([])
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def decision_of(record: JobRecord) -> Decision:
    return Decision.load(Path("outputs", record.artifacts["decision"]))


# --- what each page promises, of the records of its commands, one list a command --------------------------------------


def removes_the_last_block(runs: list[list[JobRecord]]) -> None:
    ((record,),) = runs
    assert decision_of(record).blocks == (3,)
    assert record.achieved == 0.25


def zeroes_half_of_the_weights(runs: list[list[JobRecord]]) -> None:
    ((half, pattern),) = runs
    for record in (half, pattern):
        masks = decision_of(record).changes[2].masks
        assert len(masks) == 7 and all(int(mask.sum()) * 2 == mask.numel() for mask in masks.values())
        assert 0.45 < record.achieved < 0.5
    row = next(iter(masks.values()))[0].view(-1, 4)
    assert (row.sum(1) == 2).all()


def drops_by_one_pass(runs: list[list[JobRecord]]) -> None:
    (records,) = runs
    assert [name for record in records for name in record.built].count("importance") == 1
    one, two, mlp, both = map(decision_of, records)
    assert set(one.attention) < set(two.attention) and len(two.attention) == 2
    assert set(mlp.mlp) < set(both.mlp) and not mlp.attention
    lowest = min((row for row in one.scores if row["sublayer"] == "attention"), key=lambda row: row["score"])
    assert one.attention == (lowest["layer"],) and lowest["score"] > 0


def drops_two_mlps(runs: list[list[JobRecord]]) -> None:
    ((record,),) = runs
    assert len(decision_of(record).mlp) == 2 and record.achieved > 0


def drops_and_changes(runs: list[list[JobRecord]]) -> None:
    ((record,),) = runs
    decision = decision_of(record)
    (gone,) = decision.blocks
    shares = decision.achieved_by_layer
    assert shares[gone] == 1 and all(0.45 < share < 0.5 for layer, share in enumerate(shares) if layer != gone)
    layers = pd.read_parquet("outputs/tables/measures.parquet")
    assert set(layers["protocol"]) == {"layer", "teacher_forced", "free_running"}
    # Each sublayer in its own pruned form: none is as it was.
    changed = layers.query("protocol == 'layer'").groupby(["layer", "sublayer"])["cos_h"].mean()
    assert len(changed) == 8 and (changed < 0.9999).all()
    assert len(pd.read_parquet("outputs/tables/options.parquet")) > 0
    model = AutoModelForCausalLM.from_pretrained("pruned")
    matrices = [m.weight for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear)]
    zeros = sum(int((matrix == 0).sum()) for matrix in matrices)
    assert len(matrices) == 3 * 7 and zeros * 2 == sum(map(torch.numel, matrices))
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert decision.parameters == whole - zeros
    assert report([]) == 0
    assert "drop_and_wanda" in Path("outputs/report/index.html").read_text(encoding="utf-8")


def asks_in_both_forms(runs: list[list[JobRecord]]) -> None:
    scores = pd.read_parquet("outputs/tables/scores.parquet")
    asked = {(row.pruner, row.task, row.kind, row.n) for row in scores.itertuples()}
    twins = [("capitals_generative", "generative", 4), ("capitals_multiple_choice", "multiple_choice", 4)]
    assert asked == {(pruner, *twin) for pruner in ("dense", "shortgpt") for twin in twins}


def reads_both_texts(runs: list[list[JobRecord]]) -> None:
    jobs = pd.read_parquet("outputs/tables/jobs.parquet")
    assert dict(zip(jobs["calibration"], jobs["sequences"], strict=True)) == {"file": 4, "dialogues": 4}


def runs_five_jobs(runs: list[list[JobRecord]]) -> None:
    (records,) = runs
    pairs = {(record.pruner, record.sparsity) for record in records}
    assert len(records) == len(pairs) == 5
    assert {("shortgpt", "1"), ("shortgpt", "2"), ("magnitude", "0.25"), ("wanda", "2:4")} < pairs


def loads_what_was_exported(runs: list[list[JobRecord]]) -> None:
    (_,), (by_path,), (by_name,) = runs
    assert (by_path.model, by_name.model) == ("checkpoint", "small")
    assert by_name.dense_parameters == by_path.dense_parameters


PROMISES: dict[str, Callable[[list[list[JobRecord]]], None]] = {
    "pruner": removes_the_last_block,
    "weight_pruner": zeroes_half_of_the_weights,
    "gradient_pruner": drops_by_one_pass,
    "limited_pruner": drops_two_mlps,
    "drop_and_change": drops_and_changes,
    "task": asks_in_both_forms,
    "calibration": reads_both_texts,
    "experiment": runs_five_jobs,
    "model": loads_what_was_exported,
}


def test_every_page_is_carried_out():
    pages = {path.stem for path in (ROOT / "docs" / "extending").glob("*.md")}
    assert pages == {*PROMISES, *ELSEWHERE}


@pytest.mark.parametrize("name", some("pages of docs/extending", list(PROMISES)))
def test_a_page_does_what_it_promises(name, write):
    page = write(name)
    PROMISES[name]([run_jobs(command) for command in page.commands])
    for script in page.scripts:
        exec(script, {})
    # Later commands need not be given the folder with the YAML files.
    search_also([])
    assert results(["verify", "outputs=outputs"]) == 0


# --- what goes wrong --------------------------------------------------------------------------------------------------

WRONG = [
    ("pruner", "sparsity=1", "sparsity=9", "has 4 blocks; give at most 4"),
    ("pruner", "sparsity=1", "sparsity=2:4", "last_blocks"),
    ("weight_pruner", "variance sp", "variance pruner.floor=low sp", "pruner.floor=low should be a number"),
    ("drop_and_change", "sparsity=1 ", "sparsity=1 pruner.weights=3 ", "pruner.weights=3 should be a fraction above 0"),
    ("limited_pruner", "qwen2", "gpt2", "pruner=quiet_mlp works on llama, mistral, qwen2 only, not on gpt2"),
    ("calibration", "texts/stories", "texts/storys", "texts/storys.jsonl"),
    ("experiment", " -m experiment", " experiment", "add -m"),
    ("experiment", "drop_or_mask", "drop_or_mask pruner=sparsegpt", "has no sparsity for pruner=sparsegpt; give one"),
    ("experiment", "drop_or_mask", "drop_or_mask model.layers=1", "sparsity=2 asks pruner=shortgpt for 2 units"),
]


@pytest.mark.parametrize(("name", "words", "other", "why"), WRONG)
def test_what_goes_wrong_is_refused_before_anything_is_loaded(name, words, other, why, write):
    command = write(name).commands[0]
    assert words in command
    found = refusals(command.replace(words, other))
    assert any(why in problem for problem in found), found


def test_a_task_that_names_python_code_is_refused(write):
    page = write("task")
    with Path("tasks/capitals_generative.yaml").open("a", encoding="utf-8") as file:
        file.write("process_results: !function own.score\n")
    assert any("allow_code_execution=true" in problem for problem in refusals(page.commands[0]))
