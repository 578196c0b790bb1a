"""What the runs of a real sweep hold, and what the same job adds to its run when it is run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from fake_wandb import forget_account
from tracked_sweep import JOBS, SWEEP, run_one

from pipeline.store.artifacts import Store
from pipeline.store.records import load_records
from pipeline.track import RunRecord, read_run


@pytest.fixture(scope="module")
def outputs(outputs_of_sweep: Path) -> Path:
    return outputs_of_sweep


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_account(monkeypatch, tmp_path / "home")


@pytest.fixture(scope="module")
def runs(outputs: Path) -> dict[str, RunRecord]:
    """The runs by their type, the pruner or figures."""
    found = [read_run(path) for path in sorted((outputs / "wandb").glob("offline-run-*"))]
    return {run.run["job_type"]: run for run in found}


def with_key(run: RunRecord, key: str) -> list[dict[str, object]]:
    return [row for row in run.history if key in row]


def test_each_job_the_dense_model_and_the_figures_have_a_run(runs: dict[str, RunRecord], outputs: Path) -> None:
    assert set(runs) == {"shortgpt", "wanda", "dense", "figures"}
    assert {run.run["run_group"] for run in runs.values()} == {SWEEP}
    word = (outputs / "wandb" / "word.txt").read_text()
    ids = {job.pruner: f"{job.job}-{word}" for job in load_records(Store(outputs).jobs)}
    assert {kind: run.run["run_id"] for kind, run in runs.items() if kind != "figures"} == ids


def test_config_is_what_a_run_is_filtered_and_grouped_by(runs: dict[str, RunRecord], outputs: Path) -> None:
    (job,) = [job for job in load_records(Store(outputs).jobs) if job.pruner == "wanda"]
    config = runs["wanda"].config
    assert (config["pruner"]["name"], config["task"]["limit"], config["sparsity"]) == ("wanda", 2, "2:4")
    assert [config[name] for name in ("job", "variant_id", "settings_id")] == [job.job, job.variant_id, job.settings_id]
    assert (config["dtype"], config["commit"]) == (job.dtype, job.origin["commit"])
    assert config["versions"]["torch"] == job.origin["packages"]["torch"]
    assert config["parameters"] == {"dense": job.dense_parameters, "left": job.parameters}
    text = json.dumps(config)
    assert not {"gpu", "machine", "versions"} - set(config)
    assert not [word for word in ("_target_", "pipeline.prune", "wandb.mode") if word in text]


def test_history_is_spread_over_the_job_and_has_the_headline_scores(runs: dict[str, RunRecord]) -> None:
    run = runs["wanda"]
    stages = with_key(run, "progress/stages")
    assert [row["progress/stages"] for row in stages] == [0.25, 0.5, 0.75, 1.0]
    times = [float(str(row["_timestamp"])) for row in stages]
    assert times == sorted(set(times))
    for key in ("removed", "generation/mean", "multiple_choice/mean", "perplexity/mean", "teacher_forced/kl"):
        ((row,), value) = with_key(run, key), run.summary[key]
        assert row[key] == value
    (scores,) = with_key(run, "generation/mean")
    assert times[0] < float(str(scores["_timestamp"])) < times[2]
    assert (run.summary["stage"], run.summary["generation/copying"]) == ("done", pytest.approx(0.5, abs=0.5))
    assert not [key for key in run.summary if key.startswith("dense/")]


def test_curves_that_depend_on_no_setting_are_in_the_dense_run(runs: dict[str, RunRecord]) -> None:
    key = "layer/attention/kl"
    assert {kind: bool(with_key(run, key)) for kind, run in runs.items()} == {
        "wanda": True,
        "shortgpt": False,
        "dense": True,
        "figures": False,
    }


def test_weights_and_masks_are_uploaded_only_when_asked(runs: dict[str, RunRecord], tmp_path: Path) -> None:
    assert set(runs["wanda"].artifact_types.values()) == {"scores", "measures", "run_table"}
    words = ["pruner=wanda", "sparsity=2:4", "stages=[prune]"]
    for choice, types in (("decisions", {"decision"}), ("none", set())):
        record = run_one(tmp_path / choice, "alone", [*words, f"wandb.artifacts={choice}"])
        assert set(read_run(Path(record.wandb["directory"])).artifact_types.values()) == types


def test_shares_of_the_dense_scores_are_those_of_the_table(runs: dict[str, RunRecord], outputs: Path) -> None:
    table = pd.read_parquet(outputs / "tables" / "comparisons.parquet").query("pruner == 'wanda' and task == 'mean'")
    names = {"generative": "retained/generation", "multiple_choice": "retained/multiple_choice"}
    expected = {names[row.kind]: row.retained for row in table.itertuples() if row.retained == row.retained}
    found = {key: value for key, value in runs["wanda"].summary.items() if key.startswith("retained/")}
    assert found == pytest.approx(expected)


def test_the_load_of_the_machine_is_part_of_the_run(runs: dict[str, RunRecord]) -> None:
    assert "proc.memory.rssMB" in runs["wanda"].system[0]["item"]


def test_the_same_job_resumes_its_run_and_adds_no_history(
    runs: dict[str, RunRecord], outputs: Path, tmp_path: Path
) -> None:
    outputs = shutil.copytree(outputs, tmp_path / "outputs")
    before = {path.name for path in (outputs / "wandb").glob("offline-run-*")}
    record = run_one(outputs, "20260102-120000-000000/0", JOBS[1].split())
    first, again = runs["wanda"], read_run(Path(record.wandb["directory"]))
    assert again.run["run_id"] == first.run["run_id"]
    assert again.history == []
    assert {key: again.summary[key] for key in ("removed", "generation/mean")} == {
        key: first.summary[key] for key in ("removed", "generation/mean")
    }
    # The dense run follows into the newest group.
    new = [path for path in (outputs / "wandb").glob("offline-run-*") if path.name not in before]
    dense = [read_run(path) for path in new if path.name != Path(record.wandb["directory"]).name]
    assert [(run.run["job_type"], run.history) for run in dense] == [("dense", [])]


def test_names_are_those_of_the_command_line_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_NOTES", "from the environment")
    monkeypatch.setenv("WANDB_RUN_GROUP", "theirs")
    monkeypatch.setenv("WANDB_TAGS", "one, two")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    words = ["wandb.name=mine", "wandb.group=ours", "wandb.job_type=trial", "wandb.id=abc"]
    record = run_one(tmp_path, "alone", ["pruner=magnitude", "sparsity=0.5", "stages=[prune]", *words])
    run = read_run(Path(record.wandb["directory"])).run
    assert (run["display_name"], run["run_group"], run["job_type"], run["run_id"]) == ("mine", "ours", "trial", "abc")
    assert run["notes"] == "from the environment"
    assert Path(record.wandb["directory"]).is_relative_to(tmp_path / "elsewhere" / "wandb")
    assert {"one", "two", "magnitude"} <= set(run["tags"])
