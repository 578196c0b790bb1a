"""Figures of scores: their numbers against the tables, their layout on the canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_figures import assert_apart, canvas_of, drawn, mean_of, missing, scored, texts_on
from figure_tables import identified, jobs_of, main_scores, save, scores_table, second_model

pytestmark = pytest.mark.usefixtures("no_pictures")


# Bars (figures 3 and 9)


def test_bars_are_means_of_the_scores_table(tmp_path: Path) -> None:
    result, data = drawn(scored(tmp_path), "fig03")
    assert list(dict.fromkeys(data["label"])) == ["dense", "0.4", "4:8", "2:4"]
    scores = main_scores()
    means = data[data["series"] == "mean"]
    assert len(means) == 8
    for bar in means.itertuples():
        rows = scores[(scores["pruner"] == bar.pruner) & (scores["sparsity"] == bar.sparsity)]
        expected = mean_of(rows[rows["kind"] == bar.kind])
        assert (bar.score_percent, bar.stderr_percent) == pytest.approx(expected)
    canvas = canvas_of(result, data)
    heights = [[bar.get_height() for bar in panel.patches] for panel in canvas.axes]
    assert heights == [list(means.loc[means["kind"] == kind, "score_percent"]) for kind in means["kind"].unique()]
    written = [text.get_text() for text in canvas.axes[0].texts]
    assert written == [f"{value:.1f}" for value in heights[0]] + ["tiny-lm"]


def test_bars_prefer_half_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("figure_tables.SHARES", {"0": 0.0, "0.2": 0.2, "0.4": 0.4, "0.5": 0.5, "0.6": 0.6, "2:4": 0.5})
    _, data = drawn(scored(tmp_path, [("wanda", word) for word in ("0.2", "0.5", "0.6", "2:4")]), "fig03")
    assert list(dict.fromkeys(data["label"])) == ["dense", "0.5", "2:4"]


def test_bars_of_several_models_share_tasks_and_stay_apart(tmp_path: Path) -> None:
    scored(tmp_path)
    for name in ("beta-7b-instruct", "alpha-8b", "gamma", "zeta", "omega"):
        second_model(tmp_path, name)
    table = pd.read_parquet(tmp_path / "tables" / "scores.parquet")
    lost = (table["model"] == "gamma") & (table["task"] == "facts") & (table["sparsity"] == "2:4")
    save(tmp_path, scores=table[~lost])
    result, data = drawn(tmp_path, "fig03")
    assert list(dict.fromkeys(data["model"])) == ["tiny-lm", "alpha-8b", "beta-7b-instruct", "gamma", "omega"]
    assert "Left out for space: zeta." in result.caption
    assert "facts" not in set(data["series"]) and "some points lack them: facts." in result.caption
    dense = data.query("model == 'alpha-8b' and label == 'dense' and kind == 'generative' and series == 'mean'")
    rows = main_scores().query("pruner == 'dense' and kind == 'generative' and task != 'facts'")
    assert list(dense["score_percent"]) == pytest.approx([mean_of(rows)[0]])
    canvas = canvas_of(result, data)
    assert [len(panel.patches) for panel in canvas.axes] == [20, 20]
    assert_apart(texts_on(canvas), canvas)


def test_bars_of_a_model_without_a_pattern_are_marked(tmp_path: Path) -> None:
    second_model(scored(tmp_path), "other")
    table = pd.read_parquet(tmp_path / "tables" / "scores.parquet")
    save(tmp_path, scores=table[(table["model"] != "other") | (table["sparsity"] != "4:8")])
    result, data = drawn(tmp_path, "fig03")
    assert [text.get_text() for text in canvas_of(result, data).axes[0].texts].count("n/a") == 1
    _, data = drawn(tmp_path, "fig09")
    assert list(dict.fromkeys(data["label"])) == ["dense", "2:4"]


def test_bars_need_a_pattern(tmp_path: Path) -> None:
    scored(tmp_path, [("shortgpt", "0.2"), ("wanda", "0")])
    assert (
        "with wanda under these settings; to get the data, run: python -m pipeline.main -m experiment=fig03"
        in missing(tmp_path, "fig03")
    )
    assert "with sparsegpt" in missing(tmp_path, "fig09")


def test_bars_need_both_kinds_of_task(tmp_path: Path) -> None:
    table = pd.read_parquet(scored(tmp_path) / "tables" / "scores.parquet")
    save(tmp_path, scores=table[table["kind"] == "multiple_choice"])
    assert "only multiple-choice tasks have scores" in missing(tmp_path, "fig03")
    save(tmp_path, scores=table[table["pruner"] == "wanda"].query("sparsity == '2:4'"))
    assert "only 2:4 has scores" in missing(tmp_path, "fig03")


def test_bars_without_wanda_are_of_what_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("figure_tables.SHARES", {str(count): count / 20 for count in range(14)})
    setups = [(pruner, str(count)) for pruner in ("attn_drop", "shortgpt", "mlp_drop") for count in (0, 2, 4, 8, 12)]
    result, data = drawn(scored(tmp_path, setups), "fig03")
    labels = list(dict.fromkeys(data["label"]))
    assert labels[0] == "dense" and labels[1:4] == ["shortgpt 2", "shortgpt 4", "shortgpt 8"] and len(labels) == 10
    assert "wanda was not run" in result.caption and "Left out for space" in result.caption
    canvas = canvas_of(result, data)
    assert [len(panel.patches) for panel in canvas.axes] == [10, 10]
    assert_apart(texts_on(canvas), canvas)
    colours = {patch.get_facecolor() for patch in canvas.axes[0].patches}
    assert len(colours) == 10


# Curves (figures 1 and 10)


def test_curves_of_further_models(tmp_path: Path) -> None:
    assert "no other model was evaluated under these settings" in missing(scored(tmp_path), "fig10")
    for name in ("zeta", "beta", "alpha"):
        second_model(tmp_path, name)
    table = pd.read_parquet(tmp_path / "tables" / "scores.parquet")
    halved = table["value"].where(table["model"] != "beta", table["value"] / 2)
    save(tmp_path, scores=table.assign(value=halved))
    result, data = drawn(tmp_path, "fig10")
    assert list(dict.fromkeys(data["model"])) == ["alpha", "beta"]
    assert "Left out for space: zeta." in result.caption
    _, own = drawn(tmp_path, "fig01")
    assert set(own["model"]) == {"tiny-lm"}
    for name, factor in (("alpha", 1.0), ("beta", 0.5)):
        values = data.loc[data["model"] == name, "score_percent"]
        np.testing.assert_allclose(values, factor * own["score_percent"], rtol=1e-7)
    canvas = canvas_of(result, data)
    titles = [panel.get_title(loc="left") for panel in canvas.axes]
    assert titles == [
        f"{name}: {kind} tasks" for kind in ("generative", "multiple-choice") for name in ("alpha", "beta")
    ]


def test_a_model_without_a_kind_says_so(tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        second_model(scored(tmp_path) if name == "alpha" else tmp_path, name)
    table = pd.read_parquet(tmp_path / "tables" / "scores.parquet")
    save(tmp_path, scores=table[(table["model"] != "alpha") | (table["kind"] == "generative")])
    result, data = drawn(tmp_path, "fig10")
    panel = canvas_of(result, data).axes[2]
    assert [text.get_text() for text in panel.texts] == ["alpha: no multiple-choice tasks"]
    tasks = "Generative tasks: arithmetic, copying, facts (100 items each). Multiple-choice tasks: not evaluated."
    assert f"alpha: {tasks}" in result.caption


def test_labels_of_equal_points_stay_apart(tmp_path: Path) -> None:
    setups = [(pruner, word) for pruner in ("wanda", "sparsegpt", "magnitude") for word in ("2:4", "4:8")]
    result, data = drawn(scored(tmp_path, setups), "fig01")
    same = data.assign(score_percent=40.0)
    canvas = canvas_of(result, same)
    for panel in canvas.axes:
        assert sorted(text.get_text() for text in panel.texts) == ["2:4"] * 3 + ["4:8"] * 3
        assert_apart(list(panel.texts), canvas)


def test_labels_of_a_crowd_never_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("figure_tables.SHARES", {"0": 0.0} | {f"{count}": 0.1 for count in range(1, 31)})
    setups = [(f"pruner_{place:02d}_with_a_rather_long_name", f"{place}") for place in range(1, 31)]
    result, data = drawn(scored(tmp_path, setups), "fig01")
    canvas = canvas_of(result, data)
    for panel in canvas.axes:
        assert 5 < len(panel.texts) < 30
        assert_apart([*panel.texts, *canvas.texts], canvas)
    assert set(data["series"]) == {"mean"}
    assert "Single tasks are not drawn" in result.caption and "Points without room have no label" in result.caption


def test_rows_of_long_names_stay_apart(tmp_path: Path) -> None:
    table = pd.read_parquet(scored(tmp_path) / "tables" / "comparisons.parquet")
    long = "a_pruner_of_my_own_with_an_extremely_long_name"
    save(tmp_path, comparisons=table.replace({"pruner": {"wanda": long}}))
    result, data = drawn(tmp_path, "fig26")
    canvas = canvas_of(result, data)
    written = "".join(text.get_text() for text in canvas.axes[0].get_yticklabels()).replace("\n", "")
    assert written.count(long) == 3 and "mean over cloze, entailment, science (300 items in all)" in result.caption
    assert_apart(texts_on(canvas), canvas)


def test_another_suite_adds_its_kinds_to_the_table_of_tasks_alone(tmp_path: Path) -> None:
    """The same variants, asked other tasks: no mean is over tasks of two jobs."""
    setups = [("attn_drop", "4"), ("attn_drop", "8")]
    first = scores_table(setups)
    other = identified(first.drop(columns="job"), "offline, 4 items · #99ff")
    other = other[other["kind"] == "multiple_choice"].assign(kind="retrieval", job=other["job"] + "-retrieval")
    jobs = jobs_of(pd.concat([other, first])).assign(base_id="same")
    save(tmp_path, scores=pd.concat([first, other]), jobs=jobs)
    _, curves = drawn(tmp_path, "fig01")
    assert set(curves["kind"]) == {"generative", "multiple_choice"}
    _, data = drawn(tmp_path, "tab1")
    assert set(data["kind"]) == {"retrieval", "generative", "multiple_choice"}
    kinds = data[data["series"] == "mean"].set_index(["kind", "pruner", "sparsity"])["score_percent"]
    assert kinds["retrieval"].to_dict() == kinds["multiple_choice"].to_dict()
    save(tmp_path, jobs=jobs.assign(base_id=jobs["settings_id"]))
    _, data = drawn(tmp_path, "tab1")
    assert set(data["kind"]) == {"generative", "multiple_choice"}


def test_retrieval_has_a_panel_and_chance_is_that_of_the_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "figure_tables.TASKS",
        {"generative": ("facts",), "multiple_choice": ("boolq", "science"), "retrieval": ("fiqa",)},
    )
    scored(tmp_path)
    table = pd.read_parquet(tmp_path / "tables" / "scores.parquet")
    halves = table["chance"].where(table["task"] != "boolq", 0.5)
    save(tmp_path, scores=table.assign(chance=halves))
    result, data = drawn(tmp_path, "fig01")
    canvas = canvas_of(result, data)
    assert [panel.get_title(loc="left") for panel in canvas.axes] == [
        f"tiny-lm: {kind} tasks" for kind in ("generative", "multiple-choice", "retrieval")
    ]
    assert "chance (37.5%)" in [text.get_text() for text in canvas.texts]
    lines = [{tuple(line.get_ydata()) for line in panel.lines} for panel in canvas.axes]
    assert [(37.5, 37.5) in found for found in lines] == [False, True, False]
