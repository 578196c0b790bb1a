"""Texts of every figure, drawn from awkward tables in both styles: none over another, none beyond the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from awkward import INPUTS, awkward
from choice import some
from drawn_figures import overlaps, written_on

from pipeline.config.choices import figure_names
from pipeline.config.figures import by_default
from pipeline.config.schema import PAPER, SCREEN
from pipeline.plot import canvas, style
from pipeline.plot.discovery import figures
from pipeline.plot.figure_csv import from_csv, to_csv
from pipeline.tables.choice import choose
from pipeline.tables.read import load
from pipeline.tables.stored import MissingData

SOME_INPUTS = some("awkward tables", INPUTS, count=1)
SOME_TIDY = some("figures of awkward tables", figure_names(), count=5)


@pytest.mark.parametrize("kind", SOME_INPUTS)
def test_no_two_texts_overlap_and_none_leaves_the_page(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = load(outputs := awkward(kind, tmp_path, monkeypatch), choose(outputs))
    found: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    drawn = 0
    for name in SOME_TIDY:
        figure = figures()[name]
        try:
            selection = figure.select(tables)
        except MissingData:
            continue
        data, caption = from_csv(to_csv(selection.data)), " ".join(selection.notes)
        for form in (SCREEN, PAPER):
            with style.look(replace(by_default(), style=form), figure.span_of(data)):
                sheet = figure.draw(data, *(("", "") if form == PAPER else (selection.title, caption)))
                canvas.settle(sheet)
                if wrong := overlaps(written_on(sheet), sheet):
                    found[name, form] = wrong
        drawn += 1
    assert not found and (drawn or len(SOME_TIDY) < len(figures()))
