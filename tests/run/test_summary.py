"""The printed summary: one line a job or for its repetitions, and sentences from the same items."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_tables import comparisons_table, main_scores, scores_table

from pipeline.run import summary
from pipeline.store.artifacts import Store
from pipeline.store.integrity import digest
from pipeline.store.records import OK, JobRecord
from pipeline.tables.job_tables import JobTables

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
    monkeypatch.setattr(summary, "show_table", lambda title, columns, rows, note: tables.append((columns, list(rows))))
    summary.show_scores([JobTables(job, run.store) for job in jobs], run.store, "Sweep")
    ((columns, rows),) = tables
    return pd.DataFrame(rows, columns=columns)


def headlines_of(run: Run, jobs: list[JobRecord]) -> list[str]:
    return summary.headlines([JobTables(job, run.store) for job in jobs])


def mean(pruner: str, sparsity: str, kind: str = "generative") -> float:
    rows = main_scores(SETUPS).query(f"pruner == '{pruner}' and sparsity == '{sparsity}' and kind == '{kind}'")
    return float(rows["value"].mean())


def test_every_job_has_a_row_of_its_own_numbers_beside_its_dense_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.add("dense", "0", share=0.5, asked="another way")
    run.add("dense", "0", share=0.25, seed=1)
    run.add("dense", "0")
    jobs = [run.add(*setup) for setup in SETUPS]
    table = shown(run, jobs, monkeypatch)
    assert list(zip(table["pruner"], table["sparsity"], strict=True)) == [("dense", "0"), *SETUPS]
    assert {"retrieval", "n", "task.shots"}.isdisjoint(table) and list(table["ppl"]) == ["12.250"] * 3
    for row in table.to_dict("records"):
        own = row["pruner"], row["sparsity"]
        assert row["generation"] == f"{mean(*own):.3f}"
        assert row["multiple choice"] == f"{mean(*own, 'multiple_choice'):.3f}"


def test_jobs_that_were_asked_otherwise_are_rows_that_say_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [run.add("attn_drop", "4", share, asked=asked) for share, asked in ((1.0, "0"), (0.5, "2"))]
    table = shown(run, jobs, monkeypatch)
    assert list(table["task.shots"]) == ["0", "2"]
    assert list(table["generation"]) == [f"{share * mean('attn_drop', '4'):.3f}" for share in (1.0, 0.5)]


def test_options_set_jobs_of_one_pruner_apart(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [run.add("attn_drop", "4", share, **{"pruner.power": power}) for share, power in ((1.0, 1), (0.5, 2))]
    table = shown(run, jobs, monkeypatch)
    assert list(table["options"]) == ["power 1", "power 2"]
    sentences = headlines_of(run, jobs)
    assert [sentence.partition(":")[0] for sentence in sentences] == ["attn_drop 4, power 1", "attn_drop 4, power 2"]


def test_repetitions_share_a_row_with_mean_spread_and_number(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        run.add("dense", "0", seed=seed)
    jobs = [run.add("attn_drop", "4", share, seed=seed) for seed, share in enumerate((1.0, 0.8, 0.6))]
    table = shown(run, jobs, monkeypatch)
    assert list(table["n"]) == ["3", "3"]
    values = mean("attn_drop", "4") * np.array([1.0, 0.8, 0.6])
    assert table["generation"].iloc[1] == f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def test_sentences_name_what_is_lower_unchanged_or_inconclusive(run: Run) -> None:
    jobs = [run.add(*setup) for setup in SETUPS]
    first, second = headlines_of(run, jobs)
    assert first.startswith("attn_drop 4: generation lower (0.470 → ") and ", multiple choice " in first
    assert second.startswith("attn_drop 8: generation lower (") and ", multiple choice " in second
    for verdict, said in (
        ("no change", "multiple choice unchanged ("),
        ("too few items", "multiple choice inconclusive ("),
    ):
        for name, table in run.compared.items():
            choice = table["kind"] == "multiple_choice"
            run.compared[name] = table.assign(verdict=table["verdict"].where(~choice, verdict))
        assert all(said in sentence for sentence in headlines_of(run, jobs))
    run.compared.clear()
    assert headlines_of(run, jobs) == []


def test_who_draws_nothing_loads_no_drawing_library() -> None:
    """They take seconds, which every job of a sweep would pay."""
    script = "import sys, pipeline.run.summary, pipeline.run.job; print({'matplotlib', 'seaborn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr
