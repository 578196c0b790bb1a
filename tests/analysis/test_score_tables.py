"""Table 1 and the forest plot of retained scores: their numbers against the tables, their layout on the canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_figures import assert_apart, canvas_of, drawn, mean_of, missing, scored, texts_on
from figure_tables import SETUPS, comparisons_table, jobs_table, main_scores, perplexity_rows, save, scores_table

from pipeline.evaluate.comparison import pool

pytestmark = pytest.mark.usefixtures("no_pictures")


# Table 1


def test_drop_table_has_parameters_scores_and_means(tmp_path: Path) -> None:
    result, data = drawn(scored(tmp_path), "tab1")
    order = ["dense", "Drop-8A", "Drop-8M", "shortgpt 0.2", "shortgpt 0.4", "Drop-4A", "Drop-4M"]
    assert list(dict.fromkeys(data["label"])) == order
    scores = main_scores()
    for row in data.itertuples():
        rows = scores.query("pruner == @row.pruner and sparsity == @row.sparsity and kind == @row.kind")
        expected = mean_of(rows if row.series == "mean" else rows[rows["task"] == row.series])
        assert (row.score_percent, row.stderr_percent) == pytest.approx(expected)
    assert len(data) == 7 * 2 * 4
    parameters = data.drop_duplicates("label").set_index("label")["parameters"]
    assert parameters["dense"] == 1_000_000 and parameters["Drop-8A"] == 900_000
    assert "Not evaluated: retrieval tasks." in result.caption
    canvas = canvas_of(result, data)
    assert_apart(texts_on(canvas), canvas)
    written = [text.get_text() for text in texts_on(canvas)]
    mean, error = mean_of(scores.query("pruner == 'dense' and kind == 'generative'"))
    assert {"1.0M", "0.9M", f"{mean:.1f} ± {error:.1f}"} <= set(written)
    assert written.count("dense") == 1  # kinds of task side by side


def test_drop_table_breaks_many_tasks_into_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {"0": 0.0, **{str(units): units / 40 for units in range(1, 16)}}
    monkeypatch.setattr("figure_tables.SHARES", shares)
    families = tuple(f"family_of_nationalities_{number}" for number in range(10))
    monkeypatch.setattr("figure_tables.TASKS", {"retrieval": ("nq", "fiqa"), "generative": families})
    setups = [("shortgpt", str(units)) for units in range(1, 16)] + [("mlp_drop", "8")]
    result, data = drawn(scored(tmp_path, setups), "tab1")
    labels = list(dict.fromkeys(data["label"]))
    assert len(labels) == 12 and labels[:3] == ["dense", "Drop-8M", "shortgpt 1"]
    assert "Left out for space: shortgpt 11, 12, 13, 14, 15." in result.caption
    assert "Not evaluated: multiple-choice tasks." in result.caption
    canvas = canvas_of(result, data)
    written = [text.get_text() for text in texts_on(canvas)]
    assert {"Retrieval tasks", "Generative tasks", "Generative tasks (continued)"} <= set(written)
    assert written.count("dense") == 4
    assert_apart(texts_on(canvas), canvas)


def test_drop_table_shows_what_some_rows_lack(tmp_path: Path) -> None:
    scores = main_scores()
    lost = (scores["pruner"] == "attn_drop") & (scores["sparsity"] == "8") & (scores["task"] == "facts")
    jobs = jobs_table().assign(parameters=np.nan)
    result, data = drawn(save(tmp_path, scores=scores[~lost], jobs=jobs), "tab1")
    assert data["parameters"].isna().all()
    facts = data[data["series"] == "facts"]
    assert len(facts) == 6 and "Drop-8A" not in set(facts["label"])
    mean = data.query("label == 'dense' and kind == 'generative' and series == 'mean'")["score_percent"]
    rows = scores.query("pruner == 'dense' and kind == 'generative' and task != 'facts'")
    assert list(mean) == pytest.approx([mean_of(rows)[0]])
    assert "because some rows lack them: facts." in result.caption
    assert [text.get_text() for text in texts_on(canvas_of(result, data))].count("–") == 7 + 1
    assert "none of shortgpt, attn_drop, mlp_drop was" in missing(
        save(tmp_path, scores=scores_table([("wanda", "2:4")])), "tab1"
    )


def test_drop_table_has_perplexities(tmp_path: Path) -> None:
    scores = scores_table()
    more = pd.concat([scores, perplexity_rows(scores)], ignore_index=True)
    result, data = drawn(save(scored(tmp_path), scores=more), "tab1")
    words = data[data["kind"] == "perplexity"].set_index("label")
    assert words["score_percent"].isna().all() and words.loc["dense", "perplexity"] == 12.5
    assert words.loc["Drop-8A", "perplexity"] == pytest.approx(25)
    assert "Perplexity on wiki: lower is better." in result.caption
    canvas = canvas_of(result, data)
    assert_apart(texts_on(canvas), canvas)
    assert {"Perplexity", "12.5", "25.0"} <= {text.get_text() for text in texts_on(canvas)}


# Figure 26


def test_retained_scores_are_those_of_the_comparisons(tmp_path: Path) -> None:
    result, data = drawn(scored(tmp_path), "fig26")
    table = comparisons_table().set_index(["kind", "pruner", "sparsity", "task"])
    assert len(data) == len(table) == len(SETUPS) * 2 * 4
    for row in data.itertuples():
        expected = table.loc[(row.kind, row.pruner, row.sparsity, row.series)]
        limits = expected[["retained", "retained_low", "retained_high"]].astype(float)
        assert (row.retained_percent, row.low_percent, row.high_percent) == pytest.approx(100 * limits, nan_ok=True)
        assert row.label == expected["verdict"]
    canvas = canvas_of(result, data)
    assert_apart(texts_on(canvas), canvas)
    generative = data[(data["kind"] == "generative") & (data["series"] == "mean")]
    markers = [line for line in canvas.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in markers] == pytest.approx(list(generative["retained_percent"]))
    filled = [line.get_markerfacecolor() != "white" for line in markers]
    assert filled == list(generative["label"].eq("lost")) and any(filled)


def test_means_that_are_retained_are_over_tasks_that_all_variants_have(tmp_path: Path) -> None:
    table = comparisons_table()
    lost = (table["pruner"] == "wanda") & (table["task"] == "facts")
    result, data = drawn(save(scored(tmp_path), comparisons=table[~lost]), "fig26")
    assert "Generative tasks: mean over arithmetic, copying (200 items in all)." in result.caption
    own = table.query("pruner == 'rtn' and kind == 'generative' and task not in ('facts', 'mean')")
    mean = data.query("pruner == 'rtn' and kind == 'generative' and series == 'mean'")
    assert list(mean["retained_percent"]) == pytest.approx(list(100 * pool(own)["retained"]))


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    table = comparisons_table(SETUPS[:1])
    blind = table["kind"] == "generative"
    table.loc[blind, ["dense", "dense_low", "pruned", "difference"]] = 0.0
    table.loc[blind, ["retained", "retained_low", "retained_high"]] = np.nan
    table.loc[~blind, ["low", "high"]] = [-0.9, 0.9]  # a mean that hardly says anything
    result, data = drawn(save(scored(tmp_path, list(SETUPS[:1])), comparisons=table), "fig26")
    means = data[data["series"] == "mean"].set_index("kind")
    assert means.loc["generative", "label"] == "no signal" and means.loc["multiple_choice", "label"] == "cannot be told"
    first, second = canvas_of(result, data).axes
    assert [text.get_text() for text in first.texts] == ["no signal"]
    assert next(line.get_linestyle() for line in second.lines if len(line.get_xdata()) == 2) != "-"
    table[["dense", "dense_low", "pruned", "difference"]] = 0.0
    table[["retained", "retained_low", "retained_high"]] = np.nan
    save(tmp_path, comparisons=table)
    assert "not clearly above chance in any kind of task" in missing(tmp_path, "fig26")
    (tmp_path / "tables" / "comparisons.parquet").unlink()
    assert "no pruned model's items were compared" in missing(tmp_path, "fig26")
