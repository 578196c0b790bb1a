"""Mark of the first step at which the tokens of the dense and the pruned model differ; several figures share it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from pipeline.analysis.first_difference import COLUMN
from pipeline.plot import canvas, style
from pipeline.plot.tiles import Tiles
from pipeline.tables.variants import VARIANT, variants_of

MARK = (0, (1, 1.4))


def mark_notes(data: pd.DataFrame) -> tuple[str, ...]:
    """Return sentences of a caption: what the dotted line marks, and which variants have none and why."""
    firsts = data.drop_duplicates(VARIANT)
    notes = []
    if np.isfinite(firsts[COLUMN]).any():
        notes.append("Dotted: median over prompts of the first step with different tokens.")
    for rows, reason in (
        (firsts[np.isinf(firsts[COLUMN])], "Most texts never diverge"),
        (firsts[firsts[COLUMN].isna()], "No tokens recorded"),
    ):
        if not rows.empty:
            notes.append(f"{reason}: {', '.join(variant.label for variant in variants_of(rows))}.")
    return tuple(notes)


def mark_handles(data: pd.DataFrame) -> list[Line2D]:
    """Return the legend entry of the mark in a list; an empty list if no variant has the mark."""
    marked = np.isfinite(data[COLUMN]).any()
    return [canvas.line_handle("first different token (median)", style.INK, MARK)] if marked else []


def mark(page: Tiles, panels: Mapping[int, pd.DataFrame]) -> None:
    """Mark the first difference in each panel that has one, given the rows of its variant."""
    firsts = {panel: float(own[COLUMN].iloc[0]) for panel, own in panels.items()}
    page.upright({panel: first for panel, first in firsts.items() if np.isfinite(first)}, style.INK, MARK)


def steps_shown(data: pd.DataFrame) -> np.ndarray:
    """Return all values on the x axis of curves over steps with this mark."""
    values = data[["step", COLUMN]].to_numpy(dtype=float).ravel()
    return values[np.isfinite(values)]
