"""The report of a small model, with few and coarse figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.plot import style
from pipeline.plot.drawing import draw
from pipeline.report import page

NAMES = ["fig01", "fig05", "fig07", "fig10", "tab1", "tab3"]  # enough to see every kind, and one that is missing


@contextmanager
def few_coarse_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 40)
        patch.setattr(page, "draw", lambda outputs, settings, **how: draw(outputs, NAMES, settings, **how))
        yield
