"""The legend of a page: as many columns as fit, and only entries that it can draw."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch
from matplotlib.text import Text

from pipeline.plot import canvas, style
from pipeline.plot.legend import Legend


def test_entries_fill_columns_that_fit_on_the_page() -> None:
    handles = [canvas.line_handle(f"a variant with a long name {place}", "black") for place in range(5)]
    with style.look():
        one, many = Legend.of(handles[:1]), Legend.of(handles)
        sheet = Canvas(figsize=(style.width(), 2))
        many.draw(sheet, 1.9)
    assert [len(column) for column in many.columns] == [2, 2, 1] and many.height > one.height
    assert [text.get_text() for text in sheet.texts] == [handle.get_label() for handle in handles]
    assert max(text.get_window_extent().x1 for text in sheet.texts) <= sheet.bbox.x1


def test_other_entries_are_refused() -> None:
    with style.look(), pytest.raises(TypeError, match="give a Line2D or a Patch"):
        Legend.of([Patch(label="one"), Text(label="two")]).draw(Canvas(), 1.0)
