"""Figures drawn from synthetic tables, for the tests of their numbers and of their layout."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from figure_tables import SETUPS, comparisons_table, jobs_table, save, scores_table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from pipeline.plot import style
from pipeline.plot.discovery import figures
from pipeline.plot.drawing import FigureResult, draw
from pipeline.plot.render import from_csv


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
    return save(outputs, scores=scores_table(setups), comparisons=comparisons_table(setups), jobs=jobs_table(setups))


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
