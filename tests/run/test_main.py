"""The command line end to end, on a tiny model: in real processes where starting and ending is what counts."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import DRAWN, TINY
from forked import in_a_child
from html_page import read
from naive import DEVIATIONS

from pipeline.check.command_line import problems
from pipeline.evaluate.results import SCORE_COLUMNS
from pipeline.measure.measures import COLUMNS
from pipeline.plot.__main__ import main as figures_main
from pipeline.prune.decision import ChangeFiles
from pipeline.report import write
from pipeline.run import summary
from pipeline.run.command import main
from pipeline.run.job import run_job
from pipeline.store.records import FAILED, OK, load_records
from pipeline.tables.job_columns import HOW, IDS, WHO
from pipeline.track import read_run

INDEX = ["model", "pruner", "sparsity", "protocol", "prompt", "step", "layer", "sublayer", "temperature"]
SWEEP = ("-m", DRAWN, "pruner=shortgpt,wanda", "sparsity=0,0.5", "wandb.mode=offline")


def command(outputs: Path, *arguments: str) -> list[str]:
    base = [argument for argument in TINY if not argument.startswith("wandb")]
    return [sys.executable, "-m", "pipeline.main", *base, f"outputs={outputs}", *arguments]


def run(outputs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command(outputs, *arguments), capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    outputs = tmp_path_factory.mktemp("sweep") / "outputs"
    return outputs, run(outputs, *SWEEP)


def test_a_sweep_ends_well_and_says_where_everything_is(sweep):
    outputs, done = sweep
    assert done.returncode == 0, done.stderr
    for word in (
        "dense",
        "shortgpt",
        "wanda",
        "4 variants: the dense model is not above chance in generation and multiple choice",
        str(outputs / "tables"),
        str(outputs / "figures"),
        "python -m pipeline.track.sync outputs=",
    ):
        assert word in " ".join(done.stdout.split())
    assert "interrupted" not in done.stdout
    assert "Traceback" not in done.stderr
    assert "it/s]" not in done.stderr


def test_the_report_says_how_to_repeat_the_sweep(sweep):
    page = read(write(sweep[0], drawn=[]).read_text(encoding="utf-8")).by_id("repeat")
    typed = [word for word in [*TINY, *SWEEP[1:]] if not word.startswith("wandb.")]
    assert shlex.split(page.all("pre")[0].text.splitlines()[-1]) == ["python", "-m", "pipeline.main", "-m", *typed]
    facts = dict(zip((e.text for e in page.all("dt")), (e.text for e in page.all("dd")), strict=True))
    assert facts["Seeds"] == "0, calibration 0" and "torch 2." in facts["Versions"]


def test_a_sweep_says_one_line_a_job_and_one_about_wandb_in_eighty_columns(sweep):
    outputs, done = sweep
    # Lines on how far a job is are indented, and come where one takes longer than half a minute.
    # A run that W&B has lost would be a warning of its own.
    told = [line for line in done.stderr.splitlines() if not line.startswith(("  ", "W&B: "))]
    assert [line.partition(")")[0] for line in told] == [
        *(f"job {number} ({number + 1} of 4" for number in range(4)),
        "drawing the figures and the report",
    ]
    lines = [*done.stdout.splitlines(), *told]
    assert sum("W&B" in line for line in lines) == 1
    assert max(len(line) for line in lines if str(outputs) not in line) <= 80
    # The result is at the end: table, sentences, places.
    order = [done.stdout.index(word) for word in ("shortgpt 0.5", "4 variants: ", "report   ", "W&B   ")]
    assert order == sorted(order)


def test_scores_table(sweep):
    scores = pd.read_parquet(sweep[0] / "tables" / "scores.parquet")
    how = [name for name in HOW if name != "shots"]
    assert list(scores.columns) == [*WHO, *SCORE_COLUMNS, *how, *IDS, "achieved"]
    assert set(zip(scores.pruner, scores.sparsity, strict=True)) == {
        ("dense", "0"),
        ("shortgpt", "0"),
        ("shortgpt", "0.5"),
        ("wanda", "0"),
        ("wanda", "0.5"),
    }
    assert set(scores.kind) == {"generative", "multiple_choice", "perplexity"}
    tasks = scores[scores.kind != "perplexity"]
    assert set(tasks.task) == {"copying", "plurals"}
    assert (tasks.n == 2).all()
    assert scores.groupby(["pruner", "sparsity"]).achieved.first().to_dict()[("shortgpt", "0.5")] == pytest.approx(0.5)


def test_sparsity_zero_scores_as_dense_and_deviates_nowhere(sweep):
    scores = pd.read_parquet(sweep[0] / "tables" / "scores.parquet").set_index(["task", "kind"])
    measures = pd.read_parquet(sweep[0] / "tables" / "measures.parquet")
    dense = scores[scores.pruner == "dense"].value
    for pruner in ("shortgpt", "wanda"):
        mine = scores[(scores.pruner == pruner) & (scores.sparsity == "0")].value
        pd.testing.assert_series_equal(mine.sort_index(), dense.sort_index())
        rows = measures[(measures.pruner == pruner) & (measures.sparsity == "0")]
        assert set(rows.protocol) == {"layer", "teacher_forced", "free_running"}
        for name in DEVIATIONS:
            assert (rows[name] == (1.0 if "cos" in name else 0.0)).all(), (pruner, name)


def test_measures_table(sweep):
    measures = pd.read_parquet(sweep[0] / "tables" / "measures.parquet")
    own = [*INDEX[3:], *COLUMNS]
    assert list(measures.columns) == [*WHO, *own, *HOW, *IDS]
    assert not measures.duplicated(INDEX).any()
    assert measures[own].notna().all(axis=None)
    pruned = measures[(measures.sparsity == "0.5") & (measures.protocol == "layer")]
    assert set(pruned.layer) == {0, 1, 2, 3}
    assert (pruned.kl > 0).mean() > 0.99


def test_dense_work_is_done_once(sweep):
    outputs, _ = sweep
    # A pruner at sparsity 0 leaves the dense model, whose scores are there.
    assert len(list((outputs / "store" / "evaluation").iterdir())) == 3
    assert len(list((outputs / "store" / "importance").iterdir())) == 1
    builds = [stage for record in load_records(outputs / "runs", "**/outcome.json") for stage in record.built]
    assert builds.count("importance") == 1


def test_every_job_is_a_finished_run_of_its_own_and_so_are_the_dense_model_and_the_figures(sweep):
    parts = [read_run(path) for path in (sweep[0] / "wandb").glob("offline-run-*")]
    assert {(run.run["run_group"], run.exit_code) for run in parts} == {(parts[0].run["run_group"], 0)}
    runs = list({run.run["run_id"]: run for run in parts}.values())
    (drawing,) = (run for run in runs if run.run["job_type"] == "figures")
    assert any("figures/fig01_score_vs_sparsity.path" in row for row in drawing.history)
    for pruner in ("shortgpt", "wanda"):
        curve = [row["removed"] for row in drawing.history if f"over_sparsity/{pruner}/generation" in row]
        assert curve == pytest.approx([0, 0.5], abs=0.01)
    assert list(drawing.artifact_types.values()) == ["report"]
    runs.remove(drawing)
    assert sorted(run.run["job_type"] for run in runs) == ["dense", "shortgpt", "shortgpt", "wanda", "wanda"]
    for run_ in runs:
        assert run_.config["calibration"]["sequences"] == 4
        assert "generation/mean" in run_.summary


def test_samples_keep_prompt_completion_gold_and_score(sweep):
    for path in (sweep[0] / "store" / "evaluation").glob("*/samples.jsonl.gz"):
        samples = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        assert len(samples) == 8
        assert all({"prompt", "completion", "gold", "score"} <= sample.keys() for sample in samples)


def test_a_second_run_builds_nothing(sweep, make_settings, tmp_path, caplog):
    """What one process has left, another finds."""
    outputs, _ = sweep
    before = {path: path.stat().st_mtime_ns for path in (outputs / "store").rglob("*") if path.is_file()}
    with caplog.at_level("INFO", "pipeline.run.job"):
        for pruner, sparsity in (("shortgpt", "0"), ("wanda", "0.5")):
            words = (f"pruner={pruner}", f"sparsity={sparsity}", "stages=[prune,evaluate,capture,measure]")
            again = run_job(make_settings(*words, outputs=outputs), "again", tmp_path)
            assert (again.status, again.built) == (OK, [])
    assert {path: path.stat().st_mtime_ns for path in (outputs / "store").rglob("*") if path.is_file()} == before
    told = [line for line in caplog.messages if "evaluate" in line]
    assert len(told) == 2 and not any(" s  (" in line for line in told)


def test_a_run_of_fewer_stages_loses_no_results(sweep, make_settings, tmp_path):
    outputs, _ = sweep
    before = pd.read_parquet(outputs / "tables" / "measures.parquet")
    fewer = make_settings("pruner=wanda", "sparsity=0.5", "stages=[prune]", outputs=outputs)
    assert run_job(fewer, "fewer", tmp_path).status == OK
    pd.testing.assert_frame_equal(
        pd.read_parquet(outputs / "tables" / "measures.parquet").sort_values(INDEX, ignore_index=True),
        before.sort_values(INDEX, ignore_index=True),
    )


@pytest.mark.usefixtures("no_pictures")
def test_figures_and_summary_come_from_finished_results_alone(sweep, capsys):
    outputs, _ = sweep
    assert {path.name[:5] for path in (outputs / "figures").glob("*.png")} == {"fig01"}
    for path in (outputs / "figures").glob("*.png"):
        path.unlink()
    wanted = {"fig01", "fig04", "fig07", "fig25"}
    assert figures_main([*sorted(wanted), "fig09", "--outputs", str(outputs)]) == 0
    told = capsys.readouterr().out
    assert {path.name[:5] for path in (outputs / "figures").glob("*.png")} == wanted, told
    assert "fig09_sparsegpt_patterns: not drawn: " in told
    assert "to get the data, run: python -m pipeline.main -m experiment=fig09" in told
    assert summary.main([f"outputs={outputs}"]) == 0
    told = capsys.readouterr().out
    assert "\n  4 variants: the dense model is not above chance in " in told
    assert "theorem" not in told
    assert summary.main([f"outputs={outputs}", "--theory"]) == 0
    assert "shortgpt 0.5, 4×32, attention, theorem " in capsys.readouterr().out


def test_prompts_of_a_file_go_all_the_way(make_settings, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Once upon a time\nThe rain in Spain\n")
    job = ("pruner=attn_drop", "sparsity=2", f"probes={path}", DRAWN, "figures.select=[tab3]")
    assert run_job(make_settings(*job), "prompts", tmp_path).status == OK
    tables = tmp_path / "outputs" / "tables"
    assert list(pd.read_parquet(tables / "prompts.parquet").text) == ["Once upon a time", "The rain in Spain"]
    assert set(pd.read_parquet(tables / "trajectories.parquet").prompt) == {"prompt-1", "prompt-2"}
    (drawn,) = (tmp_path / "outputs" / "figures").glob("*.csv")
    assert "The rain in Spain" in drawn.read_text()
    path.write_text(" ")
    assert problems(job, multirun=False) == [f"probes={path} contains no prompt; write one per line"]


def test_the_run_of_a_failing_job_has_failed_too(make_settings, tmp_path):
    """A calibration longer than the text fails wanda; magnitude needs no calibration."""
    words = ("sparsity=0.5", "calibration.sequences=99999999", "stages=[prune]", "wandb.mode=offline")
    records = [run_job(make_settings(*words, f"pruner={name}"), "test", tmp_path) for name in ("wanda", "magnitude")]
    assert [record.status for record in records] == [FAILED, OK]
    assert "calibration news has" in records[0].error and "are missing" in records[0].error
    assert {job.pruner: job.status for job in load_records(tmp_path / "outputs" / "jobs") if job.pruner != "dense"} == {
        "wanda": FAILED,
        "magnitude": OK,
    }
    runs = {run_.run["job_type"]: run_ for run_ in map(read_run, tmp_path.glob("outputs/wandb/offline-run-*"))}
    assert runs["wanda"].exit_code not in (0, None)
    assert runs["magnitude"].exit_code == 0


@pytest.mark.rotated("closed output")
def test_neither_a_closed_output_nor_a_missing_home_fails_a_job(tmp_path):
    job = ("pruner=dense", "stages=[prune]", "wandb.mode=disabled")
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"OMP_NUM_THREADS": "1"}
    words = ["sh", "-c", 'exec "$@" >&-', "sh", *command(tmp_path / "ö [x] = y", *job)]
    words = [word.replace("outputs=", "outputs='") + "'" * word.startswith("outputs=") for word in words]
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [record.status for record in load_records(tmp_path / "ö [x] = y" / "jobs")] == [OK]


def test_killed_between_blocks_the_same_command_goes_on_with_the_finished_ones(make_settings, tmp_path):
    """What the killed run left is the very file that ends up in the decision, and the decision is as if undisturbed."""
    job = ("pruner=sparsegpt", "sparsity=0.5", "stages=[prune]", "dtype=float32")
    outputs = tmp_path / "outputs"

    def killed() -> None:
        write = ChangeFiles.__setitem__

        def write_three(self, layer, change) -> None:
            write(self, layer, change)
            if layer == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        ChangeFiles.__setitem__ = write_three
        run_job(make_settings(*job, outputs=outputs), "killed", tmp_path)

    assert in_a_child(killed) == -signal.SIGKILL
    unfinished = outputs / "store" / ".unfinished"
    kept = {path.name: path.stat().st_ino for path in unfinished.glob("*/block-*.safetensors")}
    assert len(kept) == 3
    assert run_job(make_settings(*job, outputs=outputs), "again", tmp_path).status == OK
    assert list(unfinished.iterdir()) == []
    decided = {path.name: path for path in (outputs / "store" / "decision").glob("*/block-*.safetensors")}
    assert len(decided) == 4
    assert all(decided[name].stat().st_ino == inode for name, inode in kept.items())
    record = run_job(make_settings(*job, outputs=tmp_path / "fresh"), "undisturbed", tmp_path / "fresh")
    fresh = list((tmp_path / "fresh" / record.artifacts["decision"]).glob("block-*.safetensors"))
    assert len(fresh) == 4
    for path in fresh:
        assert path.read_bytes() == decided[path.name].read_bytes()


def test_two_spellings_of_a_key_may_not_contradict_each_other(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["main", "model=random", "task.num_fewshot=2", "task.shots=5"])
    assert main() == 2
    assert "task.num_fewshot=2 and task.shots=5 are two spellings of one key" in capsys.readouterr().err
