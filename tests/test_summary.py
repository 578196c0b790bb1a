"""The printed summary: one line a setting over all suites, and sentences from the same items."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_tables import comparisons_table, main_scores, scores_table

from pipeline import summary
from pipeline.records import OK, JobRecord
from pipeline.store import Store

SETUPS = [("attn_drop", "4"), ("attn_drop", "8")]
SETTINGS = "tiny-lm · seed 0 · #ab12"
SUITES = {"first": ["arithmetic", "copying", "cloze"], "second": ["facts", "entailment", "science"]}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, list[JobRecord]]:
    """The jobs of two suites under three settings, dense among them, and the tables of their results."""
    store, jobs, parts = Store(tmp_path), [], {}
    scores = scores_table(SETUPS)
    for suite, tasks in SUITES.items():
        for pruner, sparsity in [("dense", "0"), *SETUPS]:
            name = f"{pruner}{sparsity}-{suite}"
            record = JobRecord(name, SETTINGS, "", "tiny-lm", pruner, sparsity, status=OK, achieved=0.1)
            record.save(store)
            jobs.append(record)
            mine = (scores["job"] == pruner + sparsity) & scores["task"].isin(tasks)
            parts[name] = scores[mine].assign(job=name, settings=SETTINGS, asked=suite)
    # The perplexity of a text comes with every job.
    words = {"kind": "perplexity", "task": "wiki", "metric": "perplexity", "value": 12.25, "main": True}
    for name, frame in parts.items():
        parts[name] = pd.concat([frame, frame[:1].assign(**words)], ignore_index=True)
    monkeypatch.setattr(summary, "scores_of", lambda job, _: parts.get(job.job))
    monkeypatch.setattr(summary, "measures_of", lambda job, _: None)
    frames = []
    for suite, tasks in SUITES.items():
        table = comparisons_table(SETUPS)
        mine = table[table["task"].isin(tasks)]
        frames.append(mine.assign(job=mine["job"] + f"-{suite}", settings=SETTINGS, asked=suite))
    store.tables.mkdir(parents=True, exist_ok=True)
    pd.concat(frames, ignore_index=True).to_parquet(store.tables / "comparisons.parquet")
    return store, jobs


def shown(jobs: list[JobRecord], store: Store, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    tables = []
    monkeypatch.setattr(summary, "show_table", lambda title, columns, rows, note: tables.append((columns, list(rows))))
    summary.show_scores(jobs, store, "Sweep")
    ((columns, rows),) = tables
    return pd.DataFrame(rows, columns=columns)


def test_jobs_of_two_suites_share_a_line(run, monkeypatch: pytest.MonkeyPatch) -> None:
    store, jobs = run
    table = shown([job for job in jobs if job.pruner != "dense"], store, monkeypatch)
    assert list(zip(table["pruner"], table["sparsity"], strict=True)) == [("dense", "0"), *SETUPS]
    assert "retrieval" not in table and list(table["ppl"]) == [12.25] * 3
    means = main_scores(SETUPS).groupby(["kind", "pruner", "sparsity"])["value"].mean()
    for row in table.itertuples():
        assert row.generation == pytest.approx(means["generative", row.pruner, row.sparsity])
        assert row.choice == pytest.approx(means["multiple_choice", row.pruner, row.sparsity])


def test_means_are_over_tasks_that_all_rows_have(run, monkeypatch: pytest.MonkeyPatch) -> None:
    store, jobs = run
    table = shown(
        [job for job in jobs if job.job in ("attn_drop4-first", "attn_drop8-first", "attn_drop8-second")],
        store,
        monkeypatch,
    )
    scores = main_scores(SETUPS)
    scores = scores[scores["task"].isin(SUITES["first"]) & (scores["kind"] == "generative")]
    means = scores.groupby(["pruner", "sparsity"])["value"].mean()
    expected = [means[pair] for pair in zip(table["pruner"], table["sparsity"], strict=True)]
    np.testing.assert_allclose(list(table["generation"]), expected)


def test_sentences_name_what_is_lower_unchanged_or_undecided(run) -> None:
    store, jobs = run
    first, second = summary.headlines(jobs, store)
    assert first.startswith("attn_drop at 4: generation lower (0.47 → ") and "multiple" not in first
    assert second.startswith("attn_drop at 8: generation lower (") and ", choice " in second
    table = pd.read_parquet(store.tables / "comparisons.parquet")
    choice = table["kind"] == "multiple_choice"
    table.loc[choice, ["difference_sd", "difference"]] = [0.0, 0.0]
    table.to_parquet(store.tables / "comparisons.parquet")
    assert all("choice unchanged (" in sentence for sentence in summary.headlines(jobs, store))
    table.loc[choice, "difference_sd"] = 1.0
    table.to_parquet(store.tables / "comparisons.parquet")
    assert all(sentence.endswith("too few items)") for sentence in summary.headlines(jobs, store))
    (store.tables / "comparisons.parquet").unlink()
    assert summary.headlines(jobs, store) == []


def test_who_draws_nothing_loads_no_drawing_library() -> None:
    """They take seconds, which every job of a sweep would pay."""
    script = "import sys, pipeline.summary, pipeline.job; print({'matplotlib', 'seaborn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr
