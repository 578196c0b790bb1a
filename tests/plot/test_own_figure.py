"""Figures of the user's own: docs/extending/figure.md carried out, and files that are no figures refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from doc_pages import Page, call, start
from figure_tables import fill
from PIL import Image
from places import PYTHONPATH

from pipeline.check.command_line import problems
from pipeline.plot import style
from pipeline.plot.__main__ import main
from pipeline.plot.drawing import draw

INCLUDE = "figures.include=figures"
BOTH = (INCLUDE, "figures.select=[fig01,fig99]")


@pytest.fixture
def page(tmp_path, monkeypatch) -> Iterator[Page]:
    """The page, its folder written outside the clone."""
    written = Page("extending/figure.md")
    written.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(style, "DPI", 40)
    yield written


def test_the_page_draws_the_figure_in_both_styles_and_shows_it_in_the_report(page, tmp_path, monkeypatch, capsys):
    # Drawing all figures takes longer than all the rest.
    def few(outputs, settings, form, processes):
        return draw(outputs, ["fig04", "fig99"], settings, form=form)

    monkeypatch.setattr("pipeline.report.page.draw", few)
    run, plot, report = page.commands
    done = start(run, tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = pd.read_csv("outputs/figures/fig99_js.csv")
    assert set(drawn["pruner"]) == {"attn_drop"} and (drawn["median"] > 0).all()
    measures = pd.read_parquet("outputs/tables/measures.parquet")
    by_prompt = measures.groupby(["layer", "prompt"])["jensen_shannon"].mean()
    assert drawn["median"].to_numpy() == pytest.approx(by_prompt.groupby("layer").median().to_numpy(), rel=1e-8)
    assert "Jensen-Shannon divergence by layer" in Path("outputs/report/index.html").read_text(encoding="utf-8")
    assert call(plot) == 0
    assert "fig99_js: drawn, outputs/figures/paper/fig99_js.{pdf,png,csv,txt,tex}" in capsys.readouterr().out
    with Image.open("outputs/figures/paper/fig99_js.png") as picture:
        assert len(picture.convert("L").getcolors()) > 10
        assert picture.width == pytest.approx(3.25 * 40, abs=1)  # a column's
    Path("outputs/report/index.html").unlink()
    assert call(report) == 0
    assert 'id="fig99_js"' in Path("outputs/report/index.html").read_text(encoding="utf-8")


def change(text: str, name: str = "fig99_js.py") -> None:
    Path("figures", name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "text", "words", "why"),
    [
        ("fig99_js.py", None, ["figures.select=[fig99_jss]"], "fig99_jss does not exist; did you mean fig99_js?"),
        (
            "fig99_js.py",
            None,
            ["figures.include=nowhere"],
            "there is no folder nowhere; give the one that holds your fig",
        ),
        ("mine.py", "FIGURE = 1", ["figures.include=.."], "holds no figure; a figure is a file called figNN_name.py"),
        ("fig04_mine.py", "FIGURE = 1", [], "fig04 is the number of a built-in figure; give the file another"),
        ("fig99_other.py", "FIGURE = 1", [], "figures/fig99_other.py are all fig99; give each figure a number of its"),
        ("fig100_js.py", "FIGURE = 1", [], "figures/fig100_js.py assigns FIGURE, but is not called figNN_name.py or"),
    ],
)
@pytest.mark.usefixtures("page")
def test_names_that_cannot_be_are_refused_with_the_way_out(name, text, words, why, capsys):
    if text is not None:
        change(text, name)
    (problem,) = problems([INCLUDE, *words], multirun=False)
    assert problem.startswith("figures.") and why in problem
    assert main([INCLUDE, *words]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.usefixtures("page")
def test_two_files_with_a_built_in_number_are_named_once_each():
    change("FIGURE = 1", "fig04_mine.py")
    change("FIGURE = 1", "fig04_other.py")
    first, second = problems([INCLUDE], multirun=False)
    assert "figures/fig04_mine.py: fig04 is the number" in first and "figures/fig04_other.py: " in second


@pytest.mark.usefixtures("page")
def test_files_beside_a_figure_that_are_none_are_left_alone():
    change("X = 1", "helper.py")
    change("(", "draft.py")
    assert problems([INCLUDE], multirun=False) == []


@pytest.mark.parametrize(("text", "why"), [("", "assigns nothing to FIGURE"), ("(", "cannot be read as Python")])
@pytest.mark.usefixtures("page")
def test_a_file_that_is_no_figure_is_refused_before_a_job(text, why):
    change(text)
    (problem,) = problems([INCLUDE], multirun=False)
    assert problem.startswith("figures.include: ") and "fig99_js.py" in problem and why in problem


SOURCE = """
from pipeline.plot import canvas
from pipeline.plot.base import Figure, Selection

def select(tables):
    return Selection("Mine", tables.protocol("layer").head()[["layer"]])

def draw(data, title, caption):
    sheet, axes = canvas.page(1, 1, title=title, caption=caption)
    axes[0, 0].plot(data["layer"])
    return sheet

FIGURE = Figure(select, draw)
"""


@pytest.mark.parametrize(
    ("wrong", "right", "line", "why"),
    [
        ("", "import absent_library", 1, "ModuleNotFoundError: No module named 'absent_library'"),
        ("Figure(select, draw)", "1", None, "FIGURE is no Figure of pipeline.plot.base: end it with FIGURE = Figure"),
        ('head()[["layer"]]', 'head()[["later"]]', 6, "KeyError"),
        ('data["layer"]', 'data["later"]', 10, "KeyError: 'later'"),
        ('plot(data["layer"])', 'set_title("$x^$")', None, "found end of text"),
        ("return sheet", "return None", None, "AttributeError"),
    ],
)
@pytest.mark.usefixtures("page")
def test_a_figure_that_fails_says_where_and_keeps_no_other_from_being_drawn(wrong, right, line, why, tmp_path, capsys):
    fill(tmp_path / "outputs")
    change(SOURCE)
    assert main([*BOTH, "fig99"]) == 0
    change(right + SOURCE if not wrong else SOURCE.replace(wrong, right, 1))
    assert problems([*BOTH], multirun=False) == []
    assert main([*BOTH]) == 1
    told = dict(row.split(": ", 1) for row in capsys.readouterr().out.splitlines())
    assert "drawn" in told["fig01_score_vs_sparsity"]
    place = f"figures/fig99_js.py, line {line})" if line else "; correct "
    assert told["fig99_js"].startswith("not drawn: ") and place in told["fig99_js"] and why in told["fig99_js"]
    assert told["fig99_js"].endswith("figures/fig99_js.py")
    assert not list(Path("outputs/figures").glob("*fig99*"))


@pytest.mark.usefixtures("page")
def test_a_command_line_is_checked_without_importing_what_draws():
    script = (
        "import sys; from pipeline.check.command_line import problems\n"
        f"assert problems({[*BOTH]}, False) == []\n"
        "sys.exit(any(name.startswith('included_figures') or name in ('matplotlib', 'torch') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": PYTHONPATH})
