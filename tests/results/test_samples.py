"""``python -m pipeline.results samples``: what a job was asked and answered, for people, scripts and lm-eval."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import get_type_hints

import pytest
from conftest import TINY
from hydra import compose, initialize_config_dir
from lm_eval import utils
from lm_eval.result_schema import SampleResult

from pipeline.config.choices import CONF
from pipeline.results.__main__ import main
from pipeline.run.compose import resolve
from pipeline.run.job import run_job
from pipeline.store.records import OK, JobRecord

EVALUATE = ("pruner=magnitude", "sparsity=0.5", "stages=[prune,evaluate]")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("samples") / "outputs"


@pytest.fixture(scope="module")
def job(outputs):
    """``job("task.limit=3")`` gives the record of a pruned job that ended well."""

    def run(*words: str) -> JobRecord:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            settings = resolve(compose("config", overrides=[*TINY, f"outputs={outputs}", *EVALUATE, *words]))
        record = run_job(settings, "test", outputs / "runs" / "test")
        assert record.status == OK, record.error
        return record

    return run


@pytest.fixture(scope="module")
def scored(job) -> JobRecord:
    return job("task.limit=5")


@pytest.fixture
def ask(outputs, capsys):
    def run(record: JobRecord, *words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(["samples", record.job[:12], *words, f"outputs={outputs}"]) == status
        shown = capsys.readouterr()
        return shown.out if status == 0 else shown.err

    return run


def test_people_see_question_answer_gold_and_score(scored, ask):
    text = ask(scored, "copying")
    assert "copying, generative, item 0, score 0" in text and "plurals" not in text
    for name in ("prompt", "option", "answer", "gold"):
        assert f"\n  {name:8}| " in text
    # A few of each task, and how to see the others.
    assert "item 2" in text and "item 3" not in text
    assert "copying, generative: 2 more; --limit 5 shows them" in text
    assert "item 4" in ask(scored, "copying", "--limit", "5")


def test_scripts_get_everything_with_dense_beside_it(scored, ask):
    found = json.loads(ask(scored, "--json", "--dense"))
    assert len(found) == 2 * 2 * 5 and all(one["dense"]["prompt"] == one["prompt"] for one in found)
    rows = list(csv.DictReader(io.StringIO(ask(scored, "--csv", "--dense"))))
    assert len(rows) == len(found)
    for row, one in zip(rows, found, strict=True):
        assert (row["task"], row["kind"], int(row["item"])) == (one["task"], one["kind"], one["item"])
        assert float(row["score"]) == one["score"] and float(row["dense_score"]) == one["dense"]["score"]
        if options := one.get("options"):
            assert row["gold"] == options[one["gold"]]


def test_wrong_answers_alone(scored, ask):
    every, wrong = (json.loads(ask(scored, "--json", *words)) for words in ((), ("--wrong",)))
    assert wrong == [one for one in every if one["score"] < 1] and 0 < len(wrong) < len(every)
    limited = json.loads(ask(scored, "--json", "--wrong", "--limit", "1"))
    assert [one["item"] for one in limited if one["kind"] == "generative"] == [0, 0]


def test_answers_that_are_not_scored_leave_no_scores_anywhere(job, ask, outputs):
    record = job("task.predict_only=true")
    assert "comparison" not in record.artifacts and "not scored" in record.settings
    shown = ask(record, "copying", "--dense")
    assert "copying, generative, item 0\n" in shown and "score" not in shown
    assert "so none is wrong" in ask(record, "--wrong", status=2)
    assert main(["list", f"outputs={outputs}"]) == main(["verify", f"outputs={outputs}"]) == 0
    assert main(["show", record.job, f"outputs={outputs}"]) == 0


def test_what_is_not_there_is_refused_with_what_is(scored, ask):
    assert "has no task copyng; did you mean copying?" in ask(scored, "copyng", status=2)
    assert "--limit 0 should be at least 1" in ask(scored, "--limit", "0", status=2)
    assert "cannot be written (Not a directory)" in ask(scored, "--lm-eval", f"{__file__}/x", status=2)
    assert "--lm-eval writes every item in full" in ask(scored, "copying", "--lm-eval", "x", status=2)


def test_files_of_lm_eval_have_its_names_and_its_keys(scored, ask, tmp_path):
    written = [Path(line) for line in ask(scored, "--lm-eval", str(tmp_path), "--dense").splitlines()]
    assert len(written) == 2 and len({path.parent for path in written}) == 2
    names = [str(path) for path in tmp_path.rglob("*")]
    assert sorted(map(str, written)) == sorted(utils.get_results_filenames(names))
    results = json.loads(written[0].read_text())
    tasks = set(results["results"])
    assert tasks == {
        f"matched_{family}_{kind}" for family in ("copying", "plurals") for kind in ("generative", "multiple_choice")
    }
    assert results["task_hashes"].keys() == results["configs"].keys() == tasks
    assert results["config"]["random_seed"] == 0 and results["config"]["limit"] == 5
    of_samples = [
        path for path in map(Path, utils.get_sample_results_filenames(names)) if path.parent == written[0].parent
    ]
    assert {utils.get_file_task_name(path.name) for path in of_samples} == tasks
    fixed = set(get_type_hints(SampleResult))
    for path in of_samples:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["doc_id"] for row in rows] == list(range(5))
        assert all(row.keys() == fixed | set(row["metrics"]) for row in rows)
        assert f"results_{utils.get_file_datetime(path.name)}.json" == written[0].name
    # Written again, they are the same files.
    ask(scored, "--lm-eval", str(tmp_path))
    assert sorted(names) == sorted(str(path) for path in tmp_path.rglob("*"))


def test_jobs_are_found_under_either_spelling_of_a_key(scored, outputs, capsys):
    for key in ("task.shots", "task.num_fewshot"):
        assert main(["list", f"{key}=null", "--json", f"outputs={outputs}"]) == 0
        assert scored.job in {job["job"] for job in json.loads(capsys.readouterr().out)}
