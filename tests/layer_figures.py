"""Figures of the layer protocol from synthetic tables, for the tests of their numbers and of their layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from figure_tables import jobs_table, measures_table, save
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from pipeline.config.figures import supplement_of
from pipeline.plot import style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.discovery import resolve
from pipeline.plot.figure_csv import from_csv, to_csv
from pipeline.tables.choice import choose
from pipeline.tables.read import Tables, load

FEW = (("shortgpt", "0.2"), ("attn_drop", "4"), ("wanda", "0.4"), ("rtn", "0"))
LAYERS, PROMPTS = 3, 4
PER_LAYER = [f"fig{number}" for number in range(14, 22)]
PANELS = [f"{name} panels" for name in PER_LAYER]


def tables_of(outputs: Path, setups: Sequence[tuple[str, str]] = FEW, measures: pd.DataFrame | None = None) -> Tables:
    """Tables of some setups; those without measures of their own are read once for all figures."""
    key = tuple(setups)
    if measures is not None or key not in _read:
        own = measures_table(setups, LAYERS, PROMPTS) if measures is None else measures
        save(outputs, measures=own, jobs=jobs_table(setups))
        tables = load(outputs, choose(outputs))
        if measures is not None:
            return tables
        _read[key] = tables
    return _read[key]


_read: dict[tuple[tuple[str, str], ...], Tables] = {}


def figure_of(name: str) -> Figure:
    """A figure by its number, or its supplement: "fig14", "fig14 panels"."""
    number, _, more = name.partition(" ")
    return next(figure for full, figure in resolve([number]).items() if supplement_of(full) == more)


def shown(tables: Tables, name: str) -> tuple[Selection, pd.DataFrame]:
    """What a figure selects, and its data as its CSV holds them."""
    selection = figure_of(name).select(tables)
    return selection, from_csv(to_csv(selection.data))


def caption_of(selection: Selection) -> str:
    return " ".join(selection.notes)


def canvas_of(tables: Tables, name: str) -> Canvas:
    selection, data = shown(tables, name)
    with style.look():
        canvas = figure_of(name).draw(data, selection.title, caption_of(selection))
        FigureCanvasAgg(canvas).draw()
    return canvas
