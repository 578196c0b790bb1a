"""Provenance on the page: the command as it was typed, and what its numbers were computed with."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from figure_tables import MODEL, SETTINGS, fill, jobs_table, save
from html_page import Element, read

from pipeline.report import write
from pipeline.report.commands import commands_of
from pipeline.store.records import OK, JobRecord

SETUPS = (("wanda", "0.4"), ("wanda", "2:4"))
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ORIGIN = {
    "commit": COMMIT,
    "dirty": True,
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "lm-eval": "0.4.13"},
    "system": "Linux-6.1",
    "host": "name-of-the-machine",
    "processor": "Some CPU",
    "cores": 2,
    "memory_gib": 23.5,
    "gpus": ["H200, 143771 MiB, 570.1"],
}
TYPED = [
    "pruner=wanda",
    "sparsity=0.4,2:4",
    "task.families=[copying,facts]",
    "outputs=/somewhere",
    "wandb.mode=offline",
]


def record(pruner: str, sparsity: str) -> JobRecord:
    config = {"model.base_model": "someone/tiny-lm-base", "model.license": "mit", "pruner.name": pruner}
    config |= {"sparsity": sparsity, "calibration.seed": 3, "capture.decoding": "greedy"}
    return JobRecord(
        job=pruner + sparsity,
        settings=SETTINGS,
        model=MODEL,
        pruner=pruner,
        sparsity=sparsity,
        calibrated=True,
        status=OK,
        config=config,
        origin=ORIGIN,
    )


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = fill(tmp_path_factory.mktemp("outputs"), SETUPS)
    jobs = jobs_table(SETUPS).assign(commit=COMMIT, started="2030-01-02T03:04:05.000+00:00", seed=[7, 7, 8])
    save(outputs, jobs=jobs.assign(calibration=["", "news", "news"], model_revision="5f0b"))
    sweep = outputs / "runs" / "2030-1"
    for number, setup in enumerate(SETUPS):
        (sweep / str(number)).mkdir(parents=True)
        own = record(*setup)
        own.write(sweep / str(number) / "outcome.json")
        (outputs / "jobs").mkdir(exist_ok=True)
        own.write(outputs / "jobs" / f"{own.job}.json")
    (sweep / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": {"task": TYPED}}}))
    return outputs


@pytest.fixture(scope="module")
def section(outputs: Path) -> Element:
    return read(write(outputs, drawn=[]).read_text(encoding="utf-8")).by_id("repeat")


def test_the_command_can_be_copied_from_the_page(section: Element) -> None:
    assert section.all("pre")[0].text == (
        f"git checkout {COMMIT}\n"
        "python -m pipeline.main -m pruner=wanda sparsity=0.4,2:4 'task.families=[copying,facts]'"
    )


def test_model_data_versions_machine_and_seeds_are_said(section: Element) -> None:
    facts = dict(zip((e.text for e in section.all("dt")), (e.text for e in section.all("dd")), strict=True))
    assert facts["Model"] == "tiny-lm, someone/tiny-lm-base, revision 5f0b, licence mit, 1,000,000 parameters"
    assert facts["Calibration"] == "news, 128 sequences of 256 tokens"
    assert facts["Prompts"].endswith("tokens, greedy") and facts["Precision"] == "float32"
    assert facts["Seeds"] == "7, 8, calibration 3" and facts["Date"] == "2030-01-02 (UTC)"
    assert facts["Commit"] == "0123456789ab (with changes that were not committed)"
    assert facts["Versions"] == "Python 3.11.7, torch 2.13.0, lm-eval 0.4.13"
    assert facts["Machine"] == "Some CPU, 2 cores, 23.5 GiB, H200, 143771 MiB, 570.1, Linux-6.1"
    assert "name-of-the-machine" not in section.text


def test_tasks_come_with_shots_and_items_and_all_settings_are_there(section: Element) -> None:
    cells = section.by_id("tasks-table").rows()["facts"]
    assert [cell.text for cell in cells] == ["exact_match", "0", "100", "0", "2", "0a1b2c3d"]
    shared, differing = section.all("pre")[1:]
    assert "calibration.seed=3" in shared.text.split("\n")
    assert differing.text.split("\n") == ["sparsity=0.4", "sparsity=2:4"]


def test_the_newest_command_of_a_job_counts_and_a_damaged_one_is_left_out(outputs: Path) -> None:
    runs = outputs / "runs"
    for name, text in (
        ("2030-2", "hydra: {overrides: {task: [pruner=wanda, 'sparsity=2:4', seed=1]}}"),
        ("2030-3", "-"),
    ):
        (runs / name / ".hydra").mkdir(parents=True)
        record("wanda", "2:4" if name == "2030-2" else "0.9").write(runs / name / "outcome.json")
        (runs / name / ".hydra" / "hydra.yaml").write_text(text)
    wanted = {"wanda0.4", "wanda2:4", "wanda0.9"}
    assert commands_of(runs, wanted) == [
        "python -m pipeline.main -m pruner=wanda sparsity=0.4,2:4 'task.families=[copying,facts]'",
        "python -m pipeline.main pruner=wanda sparsity=2:4 seed=1",
    ]
    assert commands_of(runs, {"wanda2:4"}) == ["python -m pipeline.main pruner=wanda sparsity=2:4 seed=1"]
    assert commands_of(outputs / "none", wanted) == []
