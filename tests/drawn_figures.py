"""Figures drawn from synthetic tables, for the tests of their numbers and of their layout."""

from __future__ import annotations

import itertools
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from figure_tables import SETUPS, comparisons_table, jobs_table, save, scores_table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from pipeline.plot import style
from pipeline.plot.discovery import figures
from pipeline.plot.drawing import FigureResult, draw
from pipeline.plot.figure_csv import from_csv


def drawn(outputs: Path, name: str) -> tuple[FigureResult, pd.DataFrame]:
    """One figure and its CSV."""
    (result,) = draw(outputs, [name])
    assert result.missing is None
    return result, from_csv(result.paths[-1].read_bytes())


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


def written_on(canvas: Canvas) -> list[Text]:
    """The texts that drawing writes: none that is hidden, and no tick label beyond its axis."""
    written, write = [], Text.draw

    def note(text: Text, *given: object, **named: object) -> None:
        if text.get_visible() and text.get_text().strip():
            written.append(text)
        write(text, *given, **named)

    with patch.object(Text, "draw", note):
        FigureCanvasAgg(canvas).draw()
    return written


def tiles_of(canvas: Canvas) -> tuple[list[tuple[float, float]], list[list[np.ndarray]]]:
    """Top and bottom of each panel that is drawn with others in one axes, and the lines of each kind in all of them."""
    (ax,) = canvas.axes
    segments = [drawn.get_segments() for drawn in ax.collections if isinstance(drawn, LineCollection)]
    frames = [(corner[0][1], corner[1][1]) for corner in segments[1] if len(corner) == 3]
    return frames, segments[2:]


def assert_apart(texts: list[Text], canvas: Canvas) -> None:
    """No two texts overlap by more than a hair's breadth, and none leaves the page."""
    assert not overlaps(texts, canvas)


def overlaps(texts: list[Text], canvas: Canvas) -> list[tuple[str, ...]]:
    """The texts that leave the page, and the pairs that overlap by more than a hair's breadth."""
    boxes = [text.get_window_extent(canvas.canvas.get_renderer()) for text in texts]
    page = canvas.bbox
    found: list[tuple[str, ...]] = [
        (text.get_text(),)
        for text, box in zip(texts, boxes, strict=True)
        if box.x0 < page.x0 or box.x1 > page.x1 or box.y0 < page.y0 or box.y1 > page.y1
    ]
    for one, other in itertools.combinations(range(len(texts)), 2):
        shared = [boxes[one].x1, boxes[other].x1], [boxes[one].y1, boxes[other].y1]
        across = min(shared[0]) - max(boxes[one].x0, boxes[other].x0)
        up = min(shared[1]) - max(boxes[one].y0, boxes[other].y0)
        if across >= 1 and up >= 1 and not _parallel(texts[one], texts[other]):
            found.append((texts[one].get_text(), texts[other].get_text()))
    return found


def _parallel(one: Text, other: Text) -> bool:
    """Whether two texts are slanted alike, a line or more apart: their boxes overlap while they do not."""
    slant = one.get_rotation()
    if slant % 90 == 0 or other.get_rotation() != slant:
        return False
    places = [text.get_transform().transform(text.get_unitless_position()) for text in (one, other)]
    across = (places[1] - places[0]) @ np.array([-np.sin(np.radians(slant)), np.cos(np.radians(slant))])
    return bool(abs(across) >= one.get_fontsize() * one.figure.dpi / 72)


def mean_of(rows: pd.DataFrame) -> tuple[float, float]:
    """Mean score and its standard error, in percent."""
    return 100 * rows["value"].mean(), 100 * np.sqrt((rows["stderr"] ** 2).sum()) / len(rows)
