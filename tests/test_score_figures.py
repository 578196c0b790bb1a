"""Figures and tables of scores, and the pages of text: their numbers against the tables, their layout on the canvas."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_tables import (
    SETUPS,
    STATES,
    jobs_table,
    prompts_table,
    save,
    scores_table,
    second_model,
    trajectories_table,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.text import Text

from pipeline.figures import FigureResult, draw, style
from pipeline.figures.cell_text import Piece, drawable, storable, text_width, wrap_cell
from pipeline.figures.registry import figures
from pipeline.figures.render import from_csv
from pipeline.figures.table_page import Block, Column, table_page


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "DPI", 40)


def drawn(outputs: Path, name: str) -> tuple[FigureResult, pd.DataFrame]:
    """One figure and its CSV."""
    (result,) = draw(outputs, [name])
    assert result.missing is None
    return result, from_csv(result.paths[2].read_bytes())


def missing(outputs: Path, name: str) -> str:
    (result,) = draw(outputs, [name])
    assert result.missing
    return result.missing


def canvas_of(result: FigureResult, data: pd.DataFrame) -> Canvas:
    """The canvas of a drawn figure, with its texts laid out."""
    with style.look():
        canvas = figures()[result.name].draw(data, "Title", result.caption)
        FigureCanvasAgg(canvas).draw()
    return canvas


def scored(outputs: Path, setups: list[tuple[str, str]] | tuple[tuple[str, str], ...] = SETUPS) -> Path:
    return save(outputs, scores=scores_table(setups), jobs=jobs_table(setups))


def texts_on(canvas: Canvas) -> list[Text]:
    return [text for text in canvas.findobj(Text) if text.get_text().strip() and text.get_visible()]


def assert_apart(texts: list[Text], canvas: Canvas) -> None:
    """No two texts overlap by more than a hair's breadth, and none leaves the page."""
    boxes = [text.get_window_extent(canvas.canvas.get_renderer()) for text in texts]
    page = canvas.bbox
    for text, box in zip(texts, boxes, strict=True):
        inside = box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1
        assert inside, text.get_text()
    for one, other in itertools.combinations(range(len(texts)), 2):
        shared = [boxes[one].x1, boxes[other].x1], [boxes[one].y1, boxes[other].y1]
        across = min(shared[0]) - max(boxes[one].x0, boxes[other].x0)
        up = min(shared[1]) - max(boxes[one].y0, boxes[other].y0)
        assert across < 1 or up < 1, (texts[one].get_text(), texts[other].get_text())


def mean_of(rows: pd.DataFrame) -> tuple[float, float]:
    """Mean score and its standard error, in percent."""
    return 100 * rows["value"].mean(), 100 * np.sqrt((rows["stderr"] ** 2).sum()) / len(rows)


# Bars (figures 3 and 9)


def test_bars_are_means_of_the_scores_table(tmp_path: Path) -> None:
    result, data = drawn(scored(tmp_path), "fig03")
    assert list(dict.fromkeys(data["label"])) == ["dense", "0.4", "4:8", "2:4"]
    scores = scores_table()
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
    rows = scores_table().query("pruner == 'dense' and kind == 'generative' and task != 'facts'")
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
    assert "with wanda under these settings; make them with: python -m pipeline.main -m experiment=fig03" in missing(
        tmp_path, "fig03"
    )
    assert "with sparsegpt" in missing(tmp_path, "fig09")


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
    assert (
        "alpha: Generative tasks: arithmetic, copying, facts. Multiple-choice tasks: not evaluated." in result.caption
    )


def test_labels_of_equal_points_stay_apart(tmp_path: Path) -> None:
    setups = [(pruner, word) for pruner in ("wanda", "sparsegpt", "magnitude") for word in ("2:4", "4:8")]
    result, data = drawn(scored(tmp_path, setups), "fig01")
    same = data.assign(score_percent=40.0)
    canvas = canvas_of(result, same)
    for panel in canvas.axes:
        assert sorted(text.get_text() for text in panel.texts) == ["2:4"] * 3 + ["4:8"] * 3
        assert_apart(list(panel.texts), canvas)


# Table 1


def test_drop_table_has_parameters_scores_and_means(tmp_path: Path) -> None:
    result, data = drawn(scored(tmp_path), "tab1")
    order = ["dense", "Drop-8A", "Drop-8M", "shortgpt 0.2", "shortgpt 0.4", "Drop-4A", "Drop-4M"]
    assert list(dict.fromkeys(data["label"])) == order
    scores = scores_table()
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
    assert written.count("dense") == 3


def test_drop_table_breaks_many_tasks_into_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {"0": 0.0, **{str(units): units / 40 for units in range(1, 16)}}
    monkeypatch.setattr("figure_tables.SHARES", shares)
    families = tuple(f"family_of_nationalities_{number}" for number in range(10))
    monkeypatch.setattr("figure_tables.TASKS", {"retrieval": ("nq", "fiqa"), "generative": families})
    setups = [("shortgpt", str(units)) for units in range(1, 16)] + [("mlp_drop", "8")]
    result, data = drawn(scored(tmp_path, setups), "tab1")
    labels = list(dict.fromkeys(data["label"]))
    assert len(labels) == 12 and labels[:3] == ["dense", "Drop-8M", "shortgpt 1"]
    assert "Left out for space: shortgpt 11, shortgpt 12, shortgpt 13, shortgpt 14, shortgpt 15." in result.caption
    assert "Not evaluated: multiple-choice tasks." in result.caption
    canvas = canvas_of(result, data)
    written = [text.get_text() for text in texts_on(canvas)]
    assert {"Retrieval tasks", "Generative tasks", "Generative tasks (continued)"} <= set(written)
    assert written.count("dense") == 4
    assert_apart(texts_on(canvas), canvas)


def test_drop_table_shows_what_some_rows_lack(tmp_path: Path) -> None:
    scores = scores_table()
    lost = (scores["pruner"] == "attn_drop") & (scores["sparsity"] == "8") & (scores["task"] == "facts")
    result, data = drawn(save(tmp_path, scores=scores[~lost]), "tab1")  # without a table of jobs
    assert data["parameters"].isna().all()
    facts = data[data["series"] == "facts"]
    assert len(facts) == 6 and "Drop-8A" not in set(facts["label"])
    mean = data.query("label == 'dense' and kind == 'generative' and series == 'mean'")["score_percent"]
    rows = scores.query("pruner == 'dense' and kind == 'generative' and task != 'facts'")
    assert list(mean) == pytest.approx([mean_of(rows)[0]])
    assert "some rows lack them: facts." in result.caption
    assert [text.get_text() for text in texts_on(canvas_of(result, data))].count("–") == 7 + 1
    assert "none of shortgpt, attn_drop, mlp_drop was" in missing(
        save(tmp_path, scores=scores_table([("wanda", "2:4")])), "tab1"
    )


# Table 2

ODD = ["He said", ' "hi"', ",", " $x_1$ and $", "\n", "\n", " 中文", " émigré", "\r", "\0", "\t", "\ufffd", " NA"]
LONG = "Donaudampfschifffahrtsgesellschaft" * 8


def texts_table(setups: list[tuple[str, str]]) -> pd.DataFrame:
    """Trajectories of four prompts with texts that are hard to store and to draw."""
    rows = trajectories_table(setups, 4)
    odd = rows["step"].map(lambda step: ODD[step % len(ODD)])
    return rows.assign(dense_text=odd, pruned_text=odd.where(rows["pruned_token"] < 1000, f" {LONG}\n"))


def test_generated_texts_survive_the_csv(tmp_path: Path) -> None:
    setups = [("attn_drop", "4"), ("attn_drop", "8"), ("mlp_drop", "8"), ("shortgpt", "0.2"), ("wanda", "0.4")]
    rows = texts_table(setups)
    result, data = drawn(save(tmp_path, trajectories=rows, prompts=prompts_table(4)), "tab2")
    assert set(data["prompt"]) == {"open-1"}
    assert list(data["label"]) == ["dense", "Drop-4A", "Drop-8A", "Drop-8M", "shortgpt 0.2"]
    mine = rows.query("prompt == 'open-1' and pruner == 'attn_drop' and sparsity == '8'")
    row = data.set_index("label").loc["Drop-8A"]
    differs = mine["dense_token"] != mine["pruned_token"]
    assert row["first_difference"] == mine.loc[differs, "step"].min() == 4
    assert row["tokens"] == len(mine) == 30
    assert row["same_text"] == 'He said "hi", $x_1$ and $'
    assert row["text"] == "".join(mine.loc[differs, "pruned_text"])
    dense = data.set_index("label").loc["dense"]
    escaped = "".join(mine["dense_text"]).replace("\r", "\\r").replace("\0", "\\x00")
    assert dense["text"] == escaped and pd.isna(dense["first_difference"]) and pd.isna(dense["same_text"])
    assert "open-1: which of these is it?" in result.caption and "lacks" in result.caption


def test_generated_texts_are_drawn_inside_the_page(tmp_path: Path) -> None:
    setups = [("attn_drop", "8"), ("mlp_drop", "4")]
    result, data = drawn(save(tmp_path, trajectories=texts_table(setups), prompts=prompts_table(4)), "tab2")
    canvas = canvas_of(result, data)
    pieces = [text for text in texts_on(canvas) if text.get_text() != result.caption]
    assert_apart(pieces, canvas)
    written = "".join(text.get_text() for text in pieces)
    assert written.count("$x_1$ and $") == 5 and "↵↵" in written and "\\u4e2d\\u6587" in written
    for text in pieces:
        assert text.get_parse_math() is False
    colours = {text.get_text(): text.get_color() for text in pieces}
    grey = [text for text, colour in colours.items() if colour == style.GREY and text.startswith("He said")]
    assert grey == ['He said "hi", $x_1$ and $']


def test_texts_that_never_differ_or_end_early(tmp_path: Path) -> None:
    rows = trajectories_table([("rtn", "0"), ("attn_drop", "8")], 3)
    rows = rows[rows["prompt"] == "choice-1"]
    same = rows.assign(pruned_token=rows["dense_token"], pruned_text=rows["dense_text"])
    ended = (same["pruner"] == "attn_drop") & (same["step"] >= 10)
    same = same.assign(
        pruned_token=same["pruned_token"].where(~ended, -1), pruned_text=same["pruned_text"].where(~ended, "")
    )
    result, data = drawn(save(tmp_path, trajectories=same), "tab2")
    by_label = data.set_index("label")
    assert set(data["prompt"]) == {"choice-1"}
    assert pd.isna(by_label.loc["rtn", "first_difference"]) and by_label.loc["rtn", "tokens"] == 16
    assert by_label.loc["Drop-8A", "first_difference"] == 10 and by_label.loc["Drop-8A", "tokens"] == 10
    assert pd.isna(by_label.loc["Drop-8A", "text"])
    assert "never" in [text.get_text() for text in texts_on(canvas_of(result, data))]


def test_very_long_texts_are_cut(tmp_path: Path) -> None:
    steps = pd.DataFrame({"step": range(500), "dense_token": 1, "pruned_token": 2, "dense_text": "\n x"})
    rows = steps.assign(
        pruned_text="\n y", prompt="p", pruner="wanda", sparsity="0.5", model="m", job="j", settings=STATES
    )
    result, data = drawn(save(tmp_path, trajectories=rows), "tab2")
    assert list(data["tokens"]) == [128, 128] and "The first 128 tokens." in result.caption
    assert "no rows" in missing(scored(tmp_path / "other"), "tab2")


# Table 3, and pages of text


def test_prompts_are_listed_as_they_are(tmp_path: Path) -> None:
    prompts = prompts_table(5)
    prompts.loc[4, "text"] = f"Pay $5 or $6? {LONG} 中\nNA"
    result, data = drawn(save(tmp_path, prompts=prompts), "tab3")
    assert list(data["number"]) == [1, 2, 3, 4, 5]
    assert list(data["text"]) == list(prompts["text"]) and list(data["format"]) == list(prompts["format"])
    canvas = canvas_of(result, data)
    assert_apart(texts_on(canvas), canvas)
    assert "2 choice, 2 arithmetic, 1 open" in result.caption
    assert "no rows" in missing(scored(tmp_path / "other"), "tab3")


def test_cells_wrap_in_the_real_font() -> None:
    cell = (Piece("The quick brown fox ", style.GREY), Piece(f"jumps over {LONG}  it.\nThen rests."))
    lines = wrap_cell(cell, 1.5)
    written = ["".join(piece.text for _, piece in line) for line in lines]
    assert "".join(written).replace(" ", "") == "".join(piece.text for piece in cell).replace(" ", "").replace("\n", "")
    assert written[0].startswith("The quick brown fox") and written[-1] == "Then rests."
    assert max(map(text_width, written)) <= 1.5
    # Every line but the last of its paragraph has no room for what follows it.
    for line, following in itertools.pairwise(written[:-1]):
        assert text_width(f"{line} {following.split()[0]}") > 1.5
    (start, grey), (offset, ink) = lines[0]
    assert (start, grey.colour, ink.colour) == (0.0, style.GREY, style.INK)
    assert offset == pytest.approx(text_width("The quick brown fox "))


def test_text_is_as_wide_as_measured() -> None:
    with style.look():
        canvas = Canvas(figsize=(7, 1), dpi=style.DPI)
        renderer = FigureCanvasAgg(canvas).get_renderer()
        for text in ("w" * 40, "i" * 40, "Give the letter of the right answer.", "a " * 20 + "b"):
            box = canvas.text(0, 0.5, text, size=style.SMALL_SIZE).get_window_extent(renderer)
            assert box.width / style.DPI == pytest.approx(text_width(text), rel=0.01)


def test_what_cannot_be_stored_or_drawn_is_escaped() -> None:
    assert storable("a\r\n\0$\t") == "a\\r\n\\x00$\t"
    assert drawable("é中\n\t😀") == "é\\u4e2d\n\\t😀"


def test_pages_are_as_high_as_their_rows_and_rules_as_wide_as_their_columns() -> None:
    def page(count: int) -> Canvas:
        columns = [Column("name", 1.0), Column("number", 0.8, right=True)]
        rows = [[(Piece("row"),), (Piece(f"{number}"),)] for number in range(count)]
        with style.look():
            return table_page([Block(columns, rows)], title="Title", caption="Caption")

    heights = [page(count).get_figheight() for count in (1, 2, 12)]
    assert heights[2] - heights[1] == pytest.approx(10 * (heights[1] - heights[0]))
    canvas = page(3)
    rules = canvas.findobj(Line2D)
    ends = {tuple(np.round(np.asarray(line.get_xdata()) * style.WIDTH, 3)) for line in rules}
    assert ends == {(0.08, 2.0)} and len(rules) == 3
    FigureCanvasAgg(canvas).draw()
    right = [text.get_window_extent().x1 / canvas.dpi for text in texts_on(canvas) if text.get_ha() == "right"]
    assert right == pytest.approx([2.0] * 4, abs=0.01)
    bold = [text.get_text() for text in texts_on(canvas) if text.get_weight() == "bold"]
    assert bold == ["Title", "name", "number"]
