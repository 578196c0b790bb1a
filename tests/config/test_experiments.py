"""Every figure has an experiment: its sweep, its refusals, and a tiny run that yields the figure."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cases import EXPERIMENTS, SOME_EXPERIMENTS
from forked import run_forked
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipeline.check.command_line import problems
from pipeline.config.choices import CONF, figure_names
from pipeline.config.experiment import expand
from pipeline.config.schema import PLOT, STAGES
from pipeline.plot import style
from pipeline.plot.__main__ import main as figures_main
from pipeline.plot.discovery import figures
from pipeline.plot.drawing import draw
from pipeline.run.compose import resolve
from pipeline.run.job import run_job
from pipeline.store.records import OK, JobRecord, load_records

# Enough blocks for every sweep; one item, short texts, three tokens.
FAST = (
    "model=random",
    "model.layers=13",
    "task.limit=1",
    "perplexity.tokens=96",
    "perplexity.window=64",
    "perplexity.stride=32",
    "calibration.sequences=4",
    "calibration.length=32",
    "calibration.batch_size=2",
    "capture.steps=3",
    "wandb.mode=disabled",
)
# What keeps each suite short.
FEW = {"matched": "task.families=[copying]", "offline": "task.names=[piqa,asdiv]", "retrieval": "task.documents=4"}


@cache
def composed(name: str) -> dict[str, Any]:
    """The experiment as it is, with interpolations written out as they stand."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("config", overrides=[f"experiment={name}"]), resolve=False)
    return plain


def points(name: str) -> list[dict[str, Any]]:
    """Every job of an experiment's sweep but for the models."""
    grid = {key: values for key, values in composed(name)["sweep"].items() if key != "model"}
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def settings_of(name: str, outputs: Path, *overrides: str):
    task = next((word.removeprefix("task=") for word in overrides if word.startswith("task=")), "matched")
    words = [f"experiment={name}", *FAST, FEW[task], f"outputs={outputs}", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("config", overrides=words))


def run_points(name: str, outputs: Path, chosen: list[dict[str, Any]], *overrides: str) -> list[JobRecord]:
    """Some jobs of an experiment's sweep, without its figure."""
    records = []
    for point in chosen:
        words = [f"{key}={value}" for key, value in point.items()]
        settings = settings_of(name, outputs, *words, *overrides)
        stages = tuple(stage for stage in settings.stages if stage != PLOT)
        records.append(run_job(replace(settings, stages=stages), name, outputs))
        assert records[-1].status == OK, records[-1].error
    return records


def run_ends(name: str, outputs: Path, *overrides: str) -> list[JobRecord]:
    """The first and the last job of an experiment's sweep."""
    sweep = points(name)
    return run_points(name, outputs, [sweep[0], *sweep[1:][-1:]], *overrides)


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "DPI", 40)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Shared by all experiments, so that what one has made the next one finds."""
    return tmp_path_factory.mktemp("experiments")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_the_sweep_is_written_out_after_the_arguments():
    assert expand(["-m", "experiment=fig03", "task.limit=4"]) == [
        "-m",
        "experiment=fig03",
        "task.limit=4",
        "pruner=wanda",
        "sparsity=0.5,4:8,2:4",
    ]


def test_the_command_line_wins_over_the_sweep():
    assert expand(["experiment=fig03", "sparsity=2:4"])[2:] == ["pruner=wanda"]
    assert expand(["pruner=magnitude", "++sparsity=0.1", "experiment=fig03"])[3:] == []
    assert "model=mistral_7b,llama3_8b" in expand(["experiment=fig10"])
    assert [word for word in expand(["model=a,b", "experiment=fig10"]) if word.startswith("model")] == ["model=a,b"]


@pytest.mark.parametrize("words", [[], ["-m", "pruner=wanda"], ["experiment=fig99"], ["experiment="], ["experiment"]])
def test_what_is_no_experiment_adds_nothing(words):
    assert expand(words) == words


def test_every_figure_has_an_experiment_and_every_experiment_a_figure():
    assert sorted(figures()) == figure_names()
    assert {name.partition("_")[0] for name in figures()} == set(EXPERIMENTS)
    assert {name: composed(name)["figures"]["select"] for name in EXPERIMENTS} == {name: [name] for name in EXPERIMENTS}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_has_no_problems_and_does_no_more_than_its_figure_needs(name):
    assert problems(expand([f"experiment={name}"]), multirun=True) == []
    stages = composed(name)["stages"]
    assert stages == [stage for stage in STAGES if stage in stages]
    assert {"prune", "plot"} <= set(stages) <= set(STAGES)


@pytest.mark.parametrize("name", SOME_EXPERIMENTS)
def test_an_experiment_yields_its_figure(outputs, name):
    run_ends(name, outputs)
    draw(outputs, [name])
    assert_drawn(outputs, name)


def test_the_experiment_of_further_models_yields_its_figure(outputs):
    for architecture in ("llama", "gpt2"):
        run_points("fig10", outputs, points("fig10")[-1:], f"model.architecture={architecture}")
    draw(outputs, ["fig10"])
    assert_drawn(outputs, "fig10")
    (data,) = (pd.read_csv(path) for path in (outputs / "figures").glob("fig10_*.csv"))
    assert set(data.model) == {"random-llama"}, "the model of the newest job is in figure 1"


def assert_drawn(outputs: Path, name: str) -> None:
    full = next(figure for figure in figures() if figure.startswith(f"{name}_"))
    for suffix in ("png", "csv"):
        assert (outputs / "figures" / f"{full}.{suffix}").stat().st_size > 0
    assert len(pd.read_csv(outputs / "figures" / f"{full}.csv")) > 0


def test_experiments_share_what_they_have_in_common(outputs):
    """All panels of the layer protocol come from one job, and a further temperature captures nothing again."""
    (first,) = run_ends("fig14", outputs)
    for name in ("fig15", "fig21"):
        assert {(record.job, len(record.built)) for record in run_ends(name, outputs)} == {(first.job, 0)}
    run_ends("fig11", outputs)
    warm = ("pruner=attn_drop", "sparsity=8", "measure.temperatures=[0.25]", "stages=[prune,capture,measure]")
    assert run_job(settings_of("fig11", outputs, *warm), "warm", outputs).built == ["layers", "measures"]


def test_protocols_and_temperatures_are_conditions_that_stay_side_by_side_in_the_tables(outputs):
    records = [record for name in ("fig05", "fig07", "fig11") for record in run_ends(name, outputs)]
    assert len({record.job for record in records}) == 3
    assert len({record.settings_id for record in records}) == 3
    measures = pd.read_parquet(outputs / "tables" / "measures.parquet")
    mine = measures[measures.job.isin([record.job for record in records])]
    assert set(mine.settings_id) == {record.settings_id for record in records}
    found = mine.groupby("job").agg({"protocol": set, "temperature": set}).itertuples(index=False)
    assert sorted((sorted(row.protocol), sorted(row.temperature)) for row in found) == [
        (["free_running"], [1.0]),
        (["layer"], [0.3, 0.5, 0.7, 1.0, 1.3]),
        (["layer"], [1.0]),
    ]


@pytest.mark.usefixtures("no_pictures")
def test_figures_without_data_are_listed_with_the_experiment_that_makes_them(tmp_path, capsys):
    run_ends("fig03", tmp_path)
    capsys.readouterr()
    assert figures_main(["--outputs", str(tmp_path)]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": not drawn: " in line)
    assert {"fig04_layer_cosine", "fig10_further_models", "tab2_generated_text"} <= set(lines)
    assert "fig03_wanda_patterns" not in lines
    for name, line in lines.items():
        experiment = name.partition("_")[0]
        assert experiment in EXPERIMENTS
        assert line.endswith(f"; to get the data, run: python -m pipeline.main -m experiment={experiment}")


def test_an_experiment_that_sweeps_is_refused_without_m():
    done = command("experiment=fig03", *FAST, FEW["matched"])
    assert done.returncode == 2
    assert "sparsity=0.5,4:8,2:4 lists 3 values: add -m to run them as a sweep" in done.stderr
    assert problems(expand(["experiment=fig13"]), multirun=False) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["experiment=fig99"], "experiment=fig99 does not exist; did you mean fig"),
        (["experiment=fig01,fig03"], "give one experiment at a time, since each defines its own sweep"),
        (["experiment=fig12", "pruner=sparsegpt"], "has no sparsity for pruner=sparsegpt; give one, such as"),
    ],
)
def test_experiments_that_cannot_be_run_are_refused_with_the_way_out(words, expected):
    (problem,) = problems(expand(words), multirun=True)
    assert expected in problem


def test_a_whole_experiment_from_the_command_line(tmp_path):
    words = ["experiment=fig12", *FAST, "model.layers=9", FEW["matched"], f"outputs={tmp_path}"]
    done = run_forked("-m", *words)
    assert done.returncode == 0, done.stderr
    jobs = pd.read_parquet(tmp_path / "tables" / "jobs.parquet")
    assert dict(zip(jobs.pruner, jobs.sparsity, strict=True)) == {"attn_drop": "8", "wanda": "4:8", "rtn": "0"}
    assert_drawn(tmp_path, "fig12")
    assert {path.name.partition("_")[0] for path in (tmp_path / "figures").glob("*.csv")} == {"fig12"}
    for record in load_records(tmp_path / "jobs"):
        assert record.config["figures.select"] == ["fig12"]
        assert not [key for key in record.config if key.startswith("sweep")]
        json.dumps(record.config)


def test_experiments_are_run_one_at_a_time():
    for arguments in (["experiment=fig01,fig03"], ["experiment=fig01", "experiment=fig03"]):
        assert any("one experiment at a time" in problem for problem in problems(expand(arguments), multirun=True))
