"""W&B sweeps: their configuration, and jobs that an agent starts, against a server of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY
from fake_wandb import environment, forget_account, serving, use
from hydra.core.override_parser.overrides_parser import OverridesParser
from own_configuration import own_folder
from places import ROOT

from pipeline.config.search_path import search_also
from pipeline.run import wandb_sweep
from pipeline.track import RunSpec, read_run, track

COMMAND = ["-m", *(word for word in TINY if not word.startswith("wandb")), "pruner=wanda,magnitude", "sparsity=2:4,0.5"]
# A job as far as its tracking is concerned.
ONE_RUN = """
import sys
from pathlib import Path
from pipeline.track import RunSpec, track
config = {"model.name": "random-llama", "pruner": {"name": "wanda"}, "sparsity": 0.5}
with track(RunSpec(Path(sys.argv[1]), "offline", "mine", "me", "wanda 0.5", "folder-name", "wanda", (), config)) as run:
    run.summary({"generation/mean": 0.5})
print(run.receipt.run_id, run.receipt.group, run.receipt.verified, run.receipt.problem)
"""


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_account(monkeypatch, tmp_path / "home")


def test_the_run_of_an_agent_is_the_one_that_it_has_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = tmp_path / "config-abc123.yaml"
    values.write_text("wandb_version: 1\nmodel:\n  value: random\nsparsity:\n  value: 0.5\n")
    for name, value in {
        "WANDB_SWEEP_ID": "sweep123",
        "WANDB_RUN_ID": "abc123",
        "WANDB_SWEEP_PARAM_PATH": str(values),
        "WANDB_PROJECT": "theirs",
        "WANDB_ENTITY": "team",
    }.items():
        monkeypatch.setenv(name, value)
    # wandb reads the environment once a process.
    done = subprocess.run(
        [sys.executable, "-c", ONE_RUN, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(),
    )
    assert done.stdout == "abc123 sweep123 True None\n", done.stderr
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    run = read_run(folder)
    assert (run.run["run_id"], run.run["sweep_id"], run.run["run_group"]) == ("abc123", "sweep123", "sweep123")
    assert (run.run["project"], run.run["entity"]) == ("theirs", "team")
    # The sweep's own values keep their keys; the settings of a choice are beside it.
    assert (run.config["model"], run.config["model_settings"]) == ("random", {"name": "random-llama"})
    assert run.config["pruner"] == {"name": "wanda"}


def test_without_an_agent_a_run_has_an_id_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    with track(RunSpec(tmp_path, "offline", "mine", None, "dense", "folder-name", "dense", (), {})) as run:
        run.summary({"score": 1.0})
    assert run.receipt.run_id != "abc123"
    assert run.receipt.group == "folder-name"


def test_values_mean_the_same_when_an_agent_writes_them(tmp_path: Path) -> None:
    words = [
        "sparsity=0.5,4:8,2of4,8",
        "a='x y',\"b,c\"",
        "path=/a/b:c",
        "stages=[prune,evaluate],[prune]",
        "none=null",
        "small=1e-5",
        "memory={cpu: 8GiB}",
        "truth=true,false",
        "empty=''",
        "text='2'",
        "comma=a\\,b",
    ]
    parse = OverridesParser.create().parse_override
    for word in words:
        override = parse(word)
        (found,) = wandb_sweep.values_of([word]).values()
        meant = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
        # As the agent writes them, after the file has been read back.
        written = [parse(f"{override.key_or_group}={value}").value() for value in yaml.safe_load(yaml.safe_dump(found))]
        assert written == [getattr(value, "text", value) for value in meant]


def test_a_command_line_becomes_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wandb_sweep.main([*COMMAND, f"outputs={tmp_path}", "--metric", "KL"]) == 0
    config = yaml.safe_load((tmp_path / "dashboard" / "sweep.yaml").read_text())
    assert config["method"] == "grid"
    assert config["metric"] == {"name": "free_running/kl", "goal": "minimize"}
    assert config["parameters"]["pruner"] == {"values": ["wanda", "magnitude"]}
    assert config["parameters"]["sparsity"] == {"values": ["2:4", 0.5]}
    assert config["parameters"]["task.limit"] == {"value": 2}
    assert config["command"][2:] == ["-m", "pipeline.main", "${args_no_hyphens}"]
    said = capsys.readouterr().out
    assert "no API key" in said
    assert "wandb sweep --project pruning-representations" in said


@pytest.fixture
def _one_search() -> Iterator[None]:
    yield
    search_also([])


@pytest.mark.usefixtures("_one_search")
def test_jobs_of_a_sweep_find_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(own_folder(tmp_path / "own", "package_of_a_sweep"))
    monkeypatch.chdir(tmp_path)
    words = ["-m", *TINY, "pruner=last_blocks", "sparsity=1,2", f"outputs={tmp_path}"]
    assert wandb_sweep.main([*words, "--config-dir", "own/conf"]) == 0
    config = yaml.safe_load((tmp_path / "dashboard" / "sweep.yaml").read_text())
    # An agent may be started in another folder.
    assert f"--config-dir={tmp_path}/own/conf" in config["command"]
    assert config["parameters"]["pruner"] == {"value": "last_blocks"}
    assert config["command"][-1] == "${args_no_hyphens}"


def test_a_wrong_command_line_makes_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = tmp_path / "none"
    assert wandb_sweep.main(["pruner=wnda", "sparsity=0.5", f"outputs={outputs}"]) == 2
    assert "did you mean wanda?" in capsys.readouterr().err
    assert wandb_sweep.main(["pruner=wanda", "hydra/launcher=local", f"outputs={outputs}"]) == 2
    assert "a W&B agent runs its jobs one after another; leave it out" in capsys.readouterr().err
    assert wandb_sweep.main(["pruner=wanda", "--config-dir=nowhere", f"outputs={outputs}"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert not outputs.exists()


@pytest.mark.rotated("agent of W&B")
def test_an_agent_runs_the_job_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real agent: what it says of the sweep, of its values and of its run arrives with the job's results."""
    with serving() as server:
        use(monkeypatch, server)
        stages = "stages=[prune]"
        assert wandb_sweep.main([*COMMAND, stages, f"outputs={tmp_path}"]) == 0
        name = "team/pruning-representations/sweep123"
        assert capsys.readouterr().out.endswith(f"wandb agent {name}\n")
        config = yaml.safe_load(server.sweeps[-1])
        arguments = {key: {"value": _first(choice)} for key, choice in config["parameters"].items()}
        command = {"type": "run", "run_id": "abc123", "program": config["program"], "args": arguments}
        server.commands.append(command)
        agent = subprocess.run(
            [sys.executable, "-m", "wandb", "agent", name],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=ROOT,
            env=environment(WANDB_DIR=str(tmp_path), OMP_NUM_THREADS="1"),
        )
        opened = server.runs[0]
    assert (opened["name"], opened["sweep"], opened["jobType"]) == ("abc123", "sweep123", "wanda"), agent.stderr
    (folder,) = (tmp_path / "wandb").glob("run-*-abc123")
    run = read_run(folder)
    assert run.exit_code == 0
    assert run.config["sparsity"] == "2:4"
    assert run.config["stages"] == "[prune]"
    assert run.summary["removed"] == pytest.approx(0.5, abs=0.01)
    assert server.received["wandb-summary.json"][-1]["removed"] == run.summary["removed"]


def _first(choice: dict[str, Any]) -> Any:
    return choice["value"] if "value" in choice else choice["values"][0]
