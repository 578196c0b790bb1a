"""Evaluation within jobs: what suites share, what is compared with dense, and what is found out before any work."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from pipeline.evaluate.comparison import VERDICTS
from pipeline.evaluate.results import SCORE_COLUMNS
from pipeline.evaluate.stage import Evaluation, prepare
from pipeline.prune.stage import PruningDecision
from pipeline.prune.workbench import Workbench
from pipeline.run.job import run_job
from pipeline.store.artifacts import Store
from pipeline.store.records import FAILED, OK, JobRecord, load_records
from pipeline.tables.choice import choose
from pipeline.tables.job_columns import HOW, IDS, WHO
from pipeline.tables.read import load

EVALUATE = "stages=[prune,evaluate]"
ENCODER = ("model=random", "model.architecture=bert", "calibration.sequences=4", "calibration.length=32")
ENCODER += ("wandb.mode=disabled",)
OTHERS = ("task.names=[piqa,asdiv]", "task.limit=3")


@pytest.fixture
def job(make_settings, tmp_path):
    def run(*overrides: str, status: str = OK, **options) -> JobRecord:
        record = run_job(make_settings(*overrides, **options), "test", tmp_path)
        assert record.status == status, record.error
        return record

    return run


@pytest.fixture
def offline(job):
    """A job on benchmarks of packages instead of the matched items."""
    from conftest import TINY

    base = [word for word in TINY if not word.startswith("task.")]
    return lambda *words, **options: job("task=offline", *OTHERS, *words, base=base, **options)


@pytest.fixture
def table(tmp_path):
    return lambda name: pd.read_parquet(tmp_path / "outputs" / "tables" / f"{name}.parquet")


def built(tmp_path, stage: str) -> int:
    return len(list((tmp_path / "outputs" / "store" / stage).iterdir()))


def test_jobs_of_two_suites_are_of_one_variant_and_rows_of_their_own(job, offline, table, tmp_path):
    first = job("pruner=wanda", "sparsity=0.5", EVALUATE)
    second = offline("pruner=wanda", "sparsity=0.5", EVALUATE)
    assert first.variant_id == second.variant_id and first.base_id == second.base_id
    assert first.settings_id != second.settings_id and first.job != second.job
    scores = table("scores")
    how = [name for name in HOW if name != "shots"]
    assert list(scores) == [*WHO, *SCORE_COLUMNS, *how, *IDS, "achieved"]
    shown = load(tmp_path / "outputs", choose(tmp_path / "outputs")).scores
    assert {"piqa", "asdiv", "stories"} == set(shown[shown.pruner == "wanda"].task)
    assert set(shown.pruner) == {"dense", "wanda"}
    assert shown.groupby(["pruner", "kind", "task"]).size().max() == 1


def test_comparisons_pair_every_task_with_dense(job, table):
    job("pruner=magnitude", "sparsity=0.5", EVALUATE, "task.limit=8")
    compared = table("comparisons")
    tasks = compared[compared.task != "mean"]
    assert set(zip(tasks.kind, tasks.task, strict=True)) == {
        (kind, task) for kind in ("generative", "multiple_choice") for task in ("copying", "plurals")
    }
    assert (tasks.n == 8).all() and set(tasks.verdict) <= set(VERDICTS)
    scores = table("scores").set_index(["pruner", "kind", "task"]).value
    for row in tasks.itertuples():
        assert row.dense == pytest.approx(scores["dense", row.kind, row.task])
        assert row.pruned == pytest.approx(scores["magnitude", row.kind, row.task])


def test_a_model_with_nothing_removed_is_not_asked_again(job, table, tmp_path):
    job("pruner=wanda", "sparsity=0", EVALUATE)
    assert built(tmp_path, Evaluation.name) == 1 and built(tmp_path, "perplexity") == 1
    scores = table("scores").set_index(["pruner", "kind", "task"]).value
    assert scores["dense"].to_dict() == scores["wanda"].to_dict()
    assert set(table("comparisons").difference) == {0.0}


def test_perplexity_is_one_row_of_every_job_and_shared_by_suites(job, offline, table, tmp_path):
    job("pruner=shortgpt", "sparsity=2", EVALUATE)
    offline("pruner=shortgpt", "sparsity=2", EVALUATE)
    assert built(tmp_path, "perplexity") == 2
    rows = table("scores").query("kind == 'perplexity'")
    assert set(rows.pruner) == {"dense", "shortgpt"} and set(rows.n) == {95}
    job("pruner=shortgpt", "sparsity=2", EVALUATE, "perplexity.tokens=null")
    assert built(tmp_path, "perplexity") == 2


def test_dense_and_pruned_share_tokenised_requests(job, tmp_path):
    job("pruner=wanda", "sparsity=0.5", EVALUATE)
    job("pruner=wanda", "sparsity=0.25", EVALUATE)
    assert built(tmp_path, Evaluation.name) == 3 and built(tmp_path, "requests") == 1


def test_measures_of_states_serve_every_suite(job, offline, table, tmp_path):
    stages = "stages=[prune,evaluate,capture,measure]"
    job("pruner=shortgpt", "sparsity=2", stages, "capture.option_items=2")
    offline("pruner=shortgpt", "sparsity=2", stages, "capture.option_items=2")
    assert built(tmp_path, "measures") == 1 and built(tmp_path, "option_measures") == 2
    shown = load(tmp_path / "outputs", choose(tmp_path / "outputs"))
    assert {"probe", "piqa"} <= set(shown.options.origin)


def test_an_unreachable_hub_ends_a_job_before_it_prunes(job, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from conftest import TINY

    base = [word for word in TINY if not word.startswith("task.")]
    record = job(
        "task=lm_eval", "task.names=[gsm8k]", "pruner=wanda", "sparsity=0.5", EVALUATE, status=FAILED, base=base
    )
    assert "openai/gsm8k" in record.error and "task=offline offers real benchmarks" in record.error
    assert not (tmp_path / "outputs" / "store" / PruningDecision.name).exists()


def test_a_missing_chat_template_ends_a_job_before_it_prunes(job, tmp_path):
    record = job("pruner=wanda", "sparsity=0.5", "task.chat_template=true", status=FAILED)
    assert "has no chat template; set it to false" in record.error
    assert not (tmp_path / "outputs" / "store" / PruningDecision.name).exists()


def test_an_instruction_that_a_chat_template_would_lose_is_refused(make_settings, monkeypatch, tmp_path):
    settings = make_settings("task.chat_template=true", "task.system_instruction=Go.", EVALUATE)
    bench = Workbench(settings, Store(tmp_path))
    turns = "{% for turn in messages %}REFUSAL{{ turn.content }}{% endfor %}"
    refusal = "{% if turn.role == 'system' %}{{ raise_exception('only user and assistant') }}{% endif %}"
    monkeypatch.setattr(bench.tokenizer, "chat_template", turns.replace("REFUSAL", refusal))
    with pytest.raises(ValueError, match="takes no system's turn; leave it out, or give task.chat_template=false"):
        prepare(bench)
    monkeypatch.setattr(bench.tokenizer, "chat_template", turns.replace("REFUSAL", ""))
    prepare(bench)


def test_encoders_are_pruned_and_evaluated_by_retrieval(job, table):
    words = ("task=retrieval", "task.limit=4", "task.documents=8", "pruner=wanda", "sparsity=0.5")
    record = job(*words, EVALUATE, base=ENCODER)
    scores = table("scores")
    assert set(scores.kind) == {"retrieval"} and set(scores.metric) == {"ndcg@10", "recall@100", "map"}
    assert set(scores.pruner) == {"dense", "wanda"} and (scores.n == 4).all()
    assert "perplexity" not in record.artifacts and set(table("comparisons").kind) == {"retrieval"}


def test_language_models_are_evaluated_by_retrieval_too(job, table):
    base = (*ENCODER[:1], *ENCODER[2:], "perplexity.tokens=null")
    job("task=retrieval", "task.limit=4", "task.documents=8", "pruner=shortgpt", "sparsity=2", EVALUATE, base=base)
    scores = table("scores").query("main")
    assert set(scores.kind) == {"retrieval"} and scores.value.between(0, 1).all()


def test_a_model_that_is_embedded_otherwise_is_evaluated_again(make_settings, tmp_path):

    def key(*words: str) -> str:
        settings = make_settings("task=retrieval", "task.limit=2", "task.documents=4", *words, base=ENCODER)
        return Workbench(settings, Store(tmp_path / "outputs")).make(Evaluation).key

    assert key() != key("+model.embedding.pooling=cls")


def test_a_headless_model_has_no_perplexity(job, make_model, tmp_path):
    folder = tmp_path / "headless"
    model = make_model()
    model.base_model.save_pretrained(folder)
    from pipeline.model.sources.random import RandomModel

    RandomModel(name="random").tokenizer(Store(tmp_path / "tokenizer")).save_pretrained(folder)
    base = ("model=hf", f"model.path={folder}", "wandb.mode=disabled")
    words = ("task=retrieval", "task.limit=2", "task.documents=4", "pruner=dense", "stages=[evaluate]")
    assert "perplexity" not in job(*words, base=base).artifacts
    record = job("pruner=dense", "task.limit=1", "stages=[evaluate]", status=FAILED, base=base)
    assert "has no output head" in record.error and "task=retrieval" in record.error


def test_records_say_how_tasks_were_asked(job, tmp_path):
    record = job("pruner=dense", "stages=[evaluate]")
    path = tmp_path / "outputs" / "jobs" / f"{record.job}.json"
    kept = json.loads(path.read_text())
    assert kept["settings"].startswith("matched, 2 items · ") and kept["settings_id"] == record.settings_id
    # What a much earlier version left is not read.
    path.write_text(json.dumps(kept | {"layout": 1}))
    assert load_records(path.parent) == []
    assert job("pruner=dense", "stages=[evaluate]").built == []
    assert [again.job for again in load_records(path.parent)] == [record.job]
