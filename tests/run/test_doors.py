"""Ways into the pipeline that Hydra's users know: folders of their own, other launchers and sweepers, a dry run."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import yaml
from choice import some
from conftest import TINY
from own_configuration import own_folder

from pipeline.check.command_line import problems
from pipeline.check.launcher import launcher_problems
from pipeline.check.sweeper import sweeper_problems
from pipeline.run.dry_run import show_plan
from pipeline.run.objective import objective_of
from pipeline.store.records import OK, load_records


def command(outputs, *words, own=None):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{own or ''}:{os.environ.get('PYTHONPATH', '')}"}
    line = [sys.executable, "-m", "pipeline.main", "-m", *TINY, f"outputs={outputs}", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A finished job, as the record and its outputs."""
    outputs = tmp_path_factory.mktemp("doors") / "outputs"
    done = command(outputs, "pruner=magnitude", "sparsity=0.5", "stages=[prune,evaluate,capture,measure]")
    assert done.returncode == 0, done.stderr
    return next(record for record in load_records(outputs / "jobs") if record.pruner == "magnitude"), outputs


# --- configuration of one's own, on somebody else's launcher -----------------------------------------------------


@pytest.mark.rotated("launcher of a plugin")
@pytest.mark.parametrize("launcher", some("launchers of others", ["joblib", "submitit_local"], count=1))
def test_a_folder_of_ones_own_serves_jobs_in_processes_of_another_launcher(tmp_path, launcher):
    own, outputs = own_folder(tmp_path / "own"), tmp_path / "outputs"
    words = [f"--config-dir={own / 'conf'}", "+experiment=own", "pruner=last_blocks"]
    done = command(outputs, *words, f"hydra/launcher={launcher}", own=own)
    assert done.returncode == 0, done.stderr
    jobs = {(record.pruner, record.sparsity) for record in load_records(outputs / "jobs") if record.status == OK}
    assert jobs - {("dense", "0")} == {("last_blocks", "1"), ("last_blocks", "2")}
    # The closing table is that of every launcher.
    assert "2 jobs: 2 ok" in done.stdout


# --- sweepers that choose their trials ---------------------------------------------------------------------------


@pytest.mark.rotated("optuna")
def test_optuna_looks_for_the_best_trial(tmp_path):
    sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", "objective=perplexity"]
    words = ["pruner=magnitude", "sparsity=interval(0.1,0.9)", "stages=[prune,evaluate]"]
    done = command(tmp_path, *sweeper, *words)
    assert done.returncode == 0, done.stderr
    (found,) = tmp_path.glob("runs/*/optimization_results.yaml")
    best = yaml.safe_load(found.read_text(encoding="utf-8"))
    by_sparsity = {
        float(record.sparsity): objective_of(record, tmp_path, ["perplexity"])
        for record in load_records(tmp_path / "jobs")
        if record.pruner == "magnitude"
    }
    assert len(by_sparsity) == 2
    assert best["best_value"] == min(by_sparsity.values())
    assert by_sparsity[round(best["best_params"]["sparsity"], 12)] == best["best_value"]
    assert "Best value" in done.stderr and "(2 of 2)" in done.stderr


def test_an_objective_is_the_jobs_own_number(job):
    record, outputs = job
    values = objective_of(record, outputs, ["removed", "kl", "generation", "perplexity"])
    assert values[0] == record.achieved
    assert values[1] > 0
    assert 0 <= values[2] <= 1
    assert values[3] > 1
    record.status = "failed"
    assert objective_of(record, outputs, ["kl"]) is None
    record.status = OK


def test_a_job_without_the_number_says_why(job, caplog):
    record, outputs = job
    assert objective_of(record, outputs, ["retained_generation", "retrieval", "kl"])[:2] == [None, None]
    first, second = caplog.messages
    assert "objective=retained_generation: magnitude 0.5 has none" in first and "give objective=generation" in first
    assert second.startswith("objective=retrieval: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "give objective=NAME"),
        (["objective=kl", "hydra.sweeper.n_trial=3"], "n_trial"),
        (["objective=generation"], "hydra.sweeper.direction=maximize"),
        (["objective=[removed,kl]"], "hydra.sweeper.direction=[maximize,minimize]"),
        (["objective=kl", "hydra.sweeper.custom_search_space=os.system"], "code to call"),
    ],
)
def test_a_sweeper_that_chooses_trials_is_checked(words, expected):
    (problem,) = sweeper_problems(["hydra/sweeper=optuna", *words], multirun=True)
    assert expected in problem


def test_what_a_sweeper_cannot_do_is_said_before_any_work():
    assert sweeper_problems(["hydra/sweeper=optuna", "objective=kl", "hydra.sweeper.n_trials=3"], multirun=True) == []
    (problem,) = sweeper_problems(["hydra/sweeper=optun"], multirun=True)
    assert "did you mean optuna?" in problem
    (problem,) = sweeper_problems(["hydra.sweeper.n_trials=3"], multirun=True)
    assert "hydra/sweeper=grid" in problem
    sampled = ["hydra/sweeper=optuna", "model=random", "pruner=magnitude"]
    assert problems([*sampled, "sparsity=interval(0.1,0.6)", "seed=choice(1,2)"], multirun=True) == []
    (problem,) = problems([*sampled, "sparsity=interval(0.1,1.6)"], multirun=True)
    assert problem.startswith("sparsity=1.6")
    (problem,) = problems(["model=random", "objective=kl", "stages=[prune]"], multirun=False)
    assert "add it to stages" in problem


def test_keys_of_another_launcher_are_checked_by_its_own_types():
    assert launcher_problems(["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]) == []
    (problem,) = launcher_problems(["hydra/launcher=joblib", "hydra.launcher.n_job=2"])
    assert "n_job" in problem
    (problem,) = launcher_problems(["hydra/launcher=joblib", "hydra.launcher._target_=os.system"])
    assert "code to call" in problem


# --- the dry run -------------------------------------------------------------------------------------------------


def plan(capsys, outputs, *words):
    """The rows of the plan, as lists of cells."""
    assert show_plan([*TINY, f"outputs={outputs}", *words]) == 0
    said = capsys.readouterr().out
    rows = [re.split(r"\s{2,}", line.strip()) for line in said.partition("\nMemory\n")[0].splitlines()]
    return [row for row in rows if row[0].isdigit()], said


def test_a_dry_run_tells_what_is_there_and_what_is_not(capsys, job):
    _, outputs = job
    before = sorted(outputs.rglob("*"))
    rows, said = plan(capsys, outputs, "pruner=magnitude,shortgpt", "sparsity=0.5,0.25")
    assert sorted(outputs.rglob("*")) == before
    cells = {row[2].partition(",")[0]: row[4:8] for row in rows}
    assert cells["magnitude 0.5"] == ["reuse"] * 4
    assert cells["magnitude 0.25"] == cells["shortgpt 0.5"] == ["compute"] * 4
    assert "4 jobs, of which 1 would reuse everything" in said
    # Earlier jobs of the same model tell the rest of the time, not what another pruner's decision takes.
    assert "decision of shortgpt" in said
    assert "decision of magnitude" not in said


def test_a_dry_run_without_results_writes_nothing(capsys, tmp_path):
    rows, said = plan(capsys, tmp_path / "outputs", "pruner=magnitude", "sparsity=0,0.5", "stages=[prune,evaluate]")
    assert not (tmp_path / "outputs").exists()
    # The pruned model at sparsity 0 is the dense one, whose scores the second job shares.
    assert [row[4:8] for row in rows] == [["compute", "compute", "–", "–"]] * 2
    assert "No earlier job tells" in said
