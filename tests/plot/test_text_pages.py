"""Pages of text, tables 2 and 3: what they say against the tables, their layout on the canvas."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_figures import assert_apart, canvas_of, drawn, missing, scored, texts_on
from figure_tables import identified, prompts_table, save, trajectories_table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from pipeline.plot import letters, style
from pipeline.plot.cell_text import Piece, drawable, storable, text_width, wrap_cell
from pipeline.plot.table_page import Block, Column, table_page

pytestmark = pytest.mark.usefixtures("no_pictures")


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
    rows = identified(steps.assign(pruned_text="\n y", prompt="p", pruner="wanda", sparsity="0.5"))
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
    assert offset == pytest.approx(letters.laid_width("The quick brown fox ", style.SMALL_SIZE))


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
    ends = {tuple(np.round(np.asarray(line.get_xdata()) * canvas.get_figwidth(), 3)) for line in rules}
    assert ends == {(0.08, 2.0)} and len(rules) == 3
    FigureCanvasAgg(canvas).draw()
    right = [text.get_window_extent().x1 / canvas.dpi for text in texts_on(canvas) if text.get_ha() == "right"]
    assert right == pytest.approx([2.0] * 4, abs=0.01)
    bold = [text.get_text() for text in texts_on(canvas) if text.get_weight() == "bold"]
    assert bold == ["Title", "name", "number"]
