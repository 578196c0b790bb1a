"""Figures of the user's own: docs/extending/figure.md carried out, and modules that are no figures refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from doc_pages import Page, call, start
from figure_tables import main_scores, save
from PIL import Image
from places import PYTHONPATH

from pipeline.check.command_line import problems
from pipeline.plot import style
from pipeline.plot.__main__ import main

MODULE = "my_package.figures.fig30_js"


@pytest.fixture
def page(tmp_path, monkeypatch) -> Iterator[Page]:
    """The page, its folder written outside the clone and importable."""
    written = Page("extending/figure.md")
    written.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(style, "DPI", 40)
    yield written
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def test_the_page_draws_the_figure_and_shows_it_in_the_report(page, tmp_path, monkeypatch, capsys):
    # Drawing all figures takes longer than all the rest.
    monkeypatch.setattr("pipeline.report.page.figures", lambda: ["fig04"])
    run, plot, report = page.commands
    done = start(run, tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = pd.read_csv("outputs/figures/fig30_js.csv")
    assert set(drawn["pruner"]) == {"attn_drop"} and (drawn["jensen_shannon"] > 0).all()
    measures = pd.read_parquet("outputs/tables/measures.parquet")
    expected = measures.groupby(["pruner", "layer"])["jensen_shannon"].mean()
    assert drawn["jensen_shannon"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-8)
    with Image.open("outputs/figures/fig30_js.png") as picture:
        assert len(picture.convert("L").getcolors()) > 10
    assert "Jensen-Shannon divergence by layer" in Path("outputs/report/index.html").read_text(encoding="utf-8")
    assert call(f"{plot} --force") == 0
    assert "fig30_js: drawn" in capsys.readouterr().out
    Path("outputs/report/index.html").unlink()
    assert call(report) == 0
    assert 'id="fig30_js"' in Path("outputs/report/index.html").read_text(encoding="utf-8")


def change(text: str, path: str = "fig30_js.py") -> None:
    Path("my_package/figures", path).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (
            "my_package.figures.fig30_jss",
            "there is no module my_package.figures.fig30_jss; did you mean my_package.figures.fig30_js?",
        ),
        ("other_package.fig30_js", "install its package, or add the folder that holds other_package/ to PYTHONPATH"),
        ("my_packet.figures.fig30_js", "install its package, or add the folder that holds my_packet/ to PYTHONPATH"),
        ("my_package.figures.fig04_mine", "fig04 is the number of a built-in figure"),
        ("my_package.figures.mine", "the file of a figure is called figNN_name.py"),
        ("my_package.figures.fig31_empty", "assigns nothing to FIGURE"),
        ("my_package.figures.fig32_broken", "cannot be read as Python"),
        ("my package.fig30", "is not the dotted path of a module"),
    ],
)
@pytest.mark.usefixtures("page")
def test_what_is_no_figure_is_refused_with_the_way_out(module, why, capsys):
    for name, text in (
        ("fig04_mine", "FIGURE = 1"),
        ("mine", "FIGURE = 1"),
        ("fig31_empty", ""),
        ("fig32_broken", "("),
    ):
        change(text, f"{name}.py")
    (problem,) = problems([f"figures=['{module}']"], multirun=False)
    assert problem.startswith("figures: ") and why in problem
    assert main([module]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import absent_library\nFIGURE = 1", "cannot be imported: ModuleNotFoundError: No module named"),
        ("FIGURE = 1", "FIGURE is no Figure of pipeline.plot.base; end it with FIGURE = Figure(select, draw)"),
    ],
)
@pytest.mark.usefixtures("page")
def test_a_module_that_fails_when_it_is_imported_says_so(text, why, capsys):
    change(text)
    assert problems([f"figures=[{MODULE}]"], multirun=False) == []
    assert main([MODULE]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.usefixtures("page")
def test_two_figures_of_one_number_are_refused_and_one_that_is_not_there_is_named_once():
    (problem,) = problems([f"figures=[{MODULE},my_package.figures.fig30_other]"], multirun=False)
    assert "there is no module my_package.figures.fig30_other" in problem
    change("FIGURE = 1", "fig30_other.py")
    (problem,) = problems([f"figures=[{MODULE},my_package.figures.fig30_other]"], multirun=False)
    assert "are all fig30; give each figure a number of its own" in problem


@pytest.mark.usefixtures("page")
def test_a_command_line_is_checked_without_importing_what_draws():
    script = (
        "import sys; from pipeline.check.command_line import problems\n"
        f"assert problems(['figures=[fig04,{MODULE}]'], False) == []\n"
        f"sys.exit(any(name in sys.modules for name in ('{MODULE}', 'matplotlib', 'torch')))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": PYTHONPATH})


@pytest.mark.parametrize(
    ("text", "function"),
    [
        (
            "def select(tables):\n    return {}['absent']\nFIGURE = Figure(select, lambda data, title, caption: None)",
            "select",
        ),
        (
            "import pandas as pd\nfrom pipeline.plot.base import Selection\n"
            "def draw(data, title, caption):\n    return data['absent']\n"
            "FIGURE = Figure(lambda tables: Selection('', pd.DataFrame({'model': ['m']})), draw)",
            "draw",
        ),
    ],
)
@pytest.mark.usefixtures("page")
def test_a_figure_that_fails_is_named_with_the_line_that_raised(text, function, tmp_path, capsys):
    save(tmp_path, scores=main_scores())
    change(f"from pipeline.plot.base import Figure\n{text}")
    assert main([MODULE, "--outputs", str(tmp_path)]) == 1
    assert re.search(
        rf"^figure fig30_js: KeyError: 'absent' \(in {function}, .*fig30_js\.py, line \d\)$",
        capsys.readouterr().err,
        re.M,
    )
