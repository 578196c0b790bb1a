"""Which files drawing writes, and which it leaves: both styles, in one process and in several."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from figure_tables import fill

from pipeline.config.figures import by_default
from pipeline.plot import style
from pipeline.plot.base import Figure
from pipeline.plot.discovery import figures
from pipeline.plot.drawing import MANY, draw

NAMES = ["fig01", "fig05", "tab1", "tab3"]
PRINT = replace(by_default(), style="paper")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figures in both styles, those for print drawn first and in two forked processes."""
    folder = fill(tmp_path_factory.mktemp("outputs"))
    script = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from pipeline.config.figures import by_default\n"
        "from pipeline.plot import drawing, style; style.DPI = 40\n"
        "form = replace(by_default(), style='paper')\n"
        f"drawing.draw(Path(sys.argv[1]), {NAMES}, form=form, processes=2)\n"
    )
    assert len(NAMES) >= MANY
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_styles_have_files_of_their_own_and_equal_tables_equal_bytes(outputs, monkeypatch):
    monkeypatch.setattr(style, "DPI", 40)
    paper = outputs / "figures" / "paper"
    printed = files(paper)
    assert {Path(name).suffix for name in printed} == {".pdf", ".png", ".csv", ".txt", ".tex", ".stamp"}
    assert not any(one.drawn for one in draw(outputs, NAMES, form=PRINT))
    shown = draw(outputs, NAMES[:1])
    assert shown[0].drawn and shown[0].paths[0].parent == outputs / "figures"
    assert files(paper) == printed
    assert not any(one.drawn for one in draw(outputs, NAMES, form=PRINT))
    assert all(one.drawn for one in draw(outputs, NAMES, form=PRINT, force=True))
    assert files(paper) == printed  # now of one process


def test_latex_has_the_caption_and_the_widths(outputs):
    paper = outputs / "figures" / "paper"
    for path in paper.glob("*.tex"):
        text, caption = path.read_text(encoding="utf-8"), path.with_suffix(".txt").read_text(encoding="utf-8")
        kind = "table" if path.name.startswith("tab") else "figure"
        assert text.startswith((rf"\begin{{{kind}*}}[t]", rf"\begin{{{kind}}}[t]"))
        assert caption.partition(". ")[0] in text and text.count(r"\caption{") == 1
        assert (r"\toprule" in text) == (kind == "table") == ("includegraphics" not in text)
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_drawing_leaves_the_search_for_garbage_as_it_was(outputs, monkeypatch):
    found = []

    def select(*_: object) -> NoReturn:
        found.append(gc.get_threshold()[0])
        raise ValueError

    monkeypatch.setitem(figures(), "fig01_score_vs_sparsity", Figure(select, select))
    before = gc.get_threshold()
    with pytest.raises(ValueError):
        draw(outputs, ["fig01"])
    assert found[0] > before[0] and gc.get_threshold() == before
