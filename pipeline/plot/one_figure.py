"""Writing of a figure that a study draws by itself, from data of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.config.figures import by_default
from pipeline.plot import render
from pipeline.plot.base import Figure, Selection
from pipeline.plot.figure_csv import to_csv

Draw = Callable[[pd.DataFrame, str, str], Canvas]


def write(folder: Path, name: str, selection: Selection, draw: Draw) -> Path:
    """Write PNG and CSV of a selection to a folder unless they are current. Returns the path of the PNG."""
    figure = Figure(lambda tables: selection, draw)
    content = render.Content(figure, to_csv(selection.data), selection.title, " ".join(selection.notes))
    files = render.FigureFiles(folder, name, by_default())
    if not files.are_current(content):
        files.write(content)
    return files.paths["png"]
