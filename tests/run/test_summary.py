"""The printed summary: one line a job or for its repetitions, and sentences from the same items."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_tables import comparisons_table, main_scores, scores_table

from pipeline.analysis.effects import Effect, Retained, effects, short_sentence
from pipeline.evaluate.comparison import MEAN
from pipeline.run import summary
from pipeline.store.artifacts import Store
from pipeline.store.integrity import digest
from pipeline.store.records import OK, JobRecord
from pipeline.tables.job_tables import JobTables
from pipeline.tables.variants import Variant

SETUPS = [("attn_drop", "4"), ("attn_drop", "8")]


@dataclass
class Run:
    """Finished jobs in a store, and what each has found."""

    store: Store
    jobs: list[JobRecord] = field(default_factory=list)
    scores: dict[str, pd.DataFrame] = field(default_factory=dict)
    compared: dict[str, pd.DataFrame] = field(default_factory=dict)

    def add(
        self, pruner: str, sparsity: str, share: float = 1.0, seed: int = 0, asked: str = "one", **config
    ) -> JobRecord:
        """A job whose every score is so many times that of the made-up tables."""
        name = f"{pruner}{sparsity}-{seed}-{asked}-{len(self.jobs)}"
        ids = {"variant_id": digest([pruner, sparsity, config]), "settings_id": digest(asked), "model_id": "tiny"}
        config = {"pruner.name": pruner, "task.shots": asked, **config}
        record = JobRecord(
            name, f"line {asked}", "tiny-lm", pruner, sparsity, **ids, replicate={"seed": seed}, config=config
        )
        record.status, record.achieved = OK, 0.0 if pruner == "dense" else 0.1
        record.save(self.store)
        scores, compared = scores_table(SETUPS), comparisons_table(SETUPS)
        mine = scores[(scores["pruner"] == pruner) & (scores["sparsity"] == sparsity) & scores["main"]]
        words = {"kind": "perplexity", "task": "wiki", "metric": "perplexity", "value": 12.25}
        self.scores[name] = pd.concat([mine.assign(value=mine["value"] * share), mine[:1].assign(**words)])
        self.compared[name] = compared[(compared["pruner"] == pruner) & (compared["sparsity"] == sparsity)]
        self.jobs.append(record)
        return record


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    found = Run(Store(tmp_path))
    monkeypatch.setattr(JobTables, "scores", property(lambda own: found.scores.get(own.record.job)))
    monkeypatch.setattr(JobTables, "comparisons", property(lambda own: found.compared.get(own.record.job)))
    return found


def shown(run: Run, jobs: list[JobRecord], monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    tables = []
    monkeypatch.setattr(summary, "show_table", lambda title, columns, rows, *_: tables.append((columns, list(rows))))
    summary.show_results([JobTables(job, run.store) for job in jobs], run.store)
    ((columns, rows),) = tables
    return pd.DataFrame(rows, columns=columns)


def sentences_of(run: Run, jobs: list[JobRecord], capsys) -> list[str]:
    """Those below the heading, each on one line."""
    capsys.readouterr()
    summary.show_results([JobTables(job, run.store) for job in jobs], run.store)
    said = capsys.readouterr().out.partition("the largest gap between kinds of task first:\n")[2]
    return said.replace("\n    ", " ").splitlines()


def mean(pruner: str, sparsity: str, kind: str = "generative") -> float:
    rows = main_scores(SETUPS).query(f"pruner == '{pruner}' and sparsity == '{sparsity}' and kind == '{kind}'")
    return float(rows["value"].mean())


def test_every_job_has_a_row_of_its_own_numbers_beside_its_dense_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.add("dense", "0", share=0.5, asked="another way")
    run.add("dense", "0", share=0.25, seed=1)
    run.add("dense", "0")
    jobs = [run.add(*setup) for setup in SETUPS]
    table = shown(run, jobs, monkeypatch)
    assert list(table["variant"]) == ["dense", "attn_drop 4", "attn_drop 8"]
    assert {"retrieval", "n", "task.shots"}.isdisjoint(table) and list(table["ppl"]) == ["12.2"] * 3
    for row, own in zip(table.to_dict("records"), [("dense", "0"), *SETUPS], strict=True):
        assert row["generation"] == f"{mean(*own):.3f}"
        assert row["multiple choice"] == f"{mean(*own, 'multiple_choice'):.3f}"


def test_jobs_that_were_asked_otherwise_are_rows_that_say_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [run.add("attn_drop", "4", share, asked=asked) for share, asked in ((1.0, "0"), (0.5, "2"))]
    table = shown(run, jobs, monkeypatch)
    assert list(table["task.shots"]) == ["0", "2"]
    assert list(table["generation"]) == [f"{share * mean('attn_drop', '4'):.3f}" for share in (1.0, 0.5)]


def test_options_set_jobs_of_one_pruner_apart(run: Run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    jobs = [run.add("attn_drop", "4", share, **{"pruner.power": power}) for share, power in ((1.0, 1), (0.5, 2))]
    sentences = sentences_of(run, jobs, capsys)
    assert {sentence.partition(":")[0].partition(", ")[2] for sentence in sentences} == {"power 1", "power 2"}
    assert list(shown(run, jobs, monkeypatch)["variant"]) == ["attn_drop 4, power 1", "attn_drop 4, power 2"]


def test_repetitions_share_a_row_with_mean_spread_and_number(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        run.add("dense", "0", seed=seed)
    jobs = [run.add("attn_drop", "4", share, seed=seed) for seed, share in enumerate((1.0, 0.8, 0.6))]
    table = shown(run, jobs, monkeypatch)
    assert list(table["n"]) == ["3", "3"]
    values = mean("attn_drop", "4") * np.array([1.0, 0.8, 0.6])
    assert table["generation"].iloc[1] == f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def test_sentences_are_the_effects_with_the_largest_gap_first(run: Run, capsys) -> None:
    run.add("dense", "0")
    jobs = [run.add(*setup) for setup in SETUPS]
    found = effects(
        pd.concat([own[own["task"] != MEAN].assign(replicates=1, options="") for own in run.compared.values()])
    )
    assert [effect.variant.sparsity for effect in found] == ["8", "4"]
    assert sentences_of(run, jobs, capsys) == [f"  {short_sentence(effect)}" for effect in found]
    run.compared.clear()
    assert sentences_of(run, jobs, capsys) == []


def test_sentences_say_under_which_conditions_and_are_not_endless(run: Run, capsys) -> None:
    jobs = [run.add("attn_drop", "4", asked=str(shots)) for shots in range(10)]
    *sentences, rest = sentences_of(run, jobs, capsys)
    assert [sentence.rpartition("(")[2] for sentence in sentences] == [f"task.shots={shots})" for shots in range(8)]
    assert rest == "  and 2 more, whose scores are in the table"


LOST = [Effect(Variant("attn_drop", "4"), (Retained("generative", 0.1, 0.05, 0.15, "lost"),))]
LONG_MODEL, LONG_TASK = "a/" + "folder_of_models/" * 3 + "my_model", "a_task_whose_name_has_forty_characters_0"


def test_everything_fits_eighty_columns_and_numbers_are_whole(
    run: Run, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    jobs = []
    for model in (LONG_MODEL, LONG_MODEL.replace("my", "its")):
        for seed in range(2):
            job = run.add("attn_drop", "8", 1 - seed / 10, seed=seed, asked=LONG_TASK)
            job.model, job.model_id = model, digest(model)
            jobs.append(job)
        jobs.append(run.add("attn_drop", "4", asked=LONG_TASK.replace("0", "1")))
        jobs[-1].model, jobs[-1].model_id = model, digest(model)
    summary.show_results([JobTables(job, run.store) for job in jobs], run.store)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    values = mean("attn_drop", "8") * np.array([1.0, 0.9])
    assert said.count(f"{values.mean():.3f} ± {values.std(ddof=1):.3f}") == 2
    # Names are folded, not cut.
    assert said.replace("\n", "").replace(" ", "").count("task.shots") >= 1


def test_lost_scores_are_coloured_on_a_terminal_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [run.add("attn_drop", "4")]
    monkeypatch.setattr(summary, "effects", lambda frame: LOST)
    for terminal, plain, coloured in ((True, "", True), (True, "1", False), (False, "", False)):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal, raising=False)
        monkeypatch.setenv("NO_COLOR", plain)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stdout", stream)
        summary.show_results([JobTables(job, run.store) for job in jobs], run.store)
        lines = stream.getvalue().splitlines()
        assert any("\033[31m" in line and "retains 10 %" in line for line in lines) == coloured
        assert any("\033[31m" in line and "attn_drop 4 " in line for line in lines) == coloured


def test_places_name_each_project_of_wandb_once(run: Run, capsys) -> None:
    jobs = [run.add(*setup) for setup in SETUPS]
    for number, job in enumerate(jobs):
        job.wandb = {"mode": "online", "url": f"https://wandb.example.org/me/mine/runs/{number}"}
    summary.show_places(jobs, run.store)
    assert "W&B      https://wandb.example.org/me/mine (2 runs)\n" in capsys.readouterr().out


def test_who_draws_nothing_loads_no_drawing_library() -> None:
    """They take seconds, which every job of a sweep would pay."""
    script = "import sys, pipeline.run.summary, pipeline.run.job; print({'matplotlib', 'seaborn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr
