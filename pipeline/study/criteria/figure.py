"""Figure of what criteria retain over all cells, and of the difference to the reference, with corrected intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.evaluate.intervals import Interval
from pipeline.evaluate.verdict import UNDECIDED, direction
from pipeline.plot import canvas, style

UNITS = {"attention": "attention sublayers", "block": "blocks", "mlp": "MLP sublayers", "sublayer": "sublayers"}
UNITS |= {"weight": "weights"}
COLUMNS = [
    "unit", "text", "criterion", "cells", "items", "draws", "kept_percent", "kept_low_percent", "kept_high_percent",
    "against", "difference_percent", "low_percent", "high_percent", "p_holm",
]  # fmt: skip
# Inches that a criterion takes, so that names do not run into one another, and the fewest that a panel has room for.
_LINE = 0.17
_FEWEST = 4
# Ends of the axes in percent; what goes beyond is cut.
_RETAINED, _DIFFERENCE = (-10.0, 110.0), (-100.0, 100.0)


def data_of(pooled: pd.DataFrame) -> pd.DataFrame:
    """Return `COLUMNS` of pooled criteria with their ``unit``, as percentages."""
    names = ("kept", "kept_low", "kept_high", "difference", "low", "high")
    return pooled.assign(**{f"{name}_percent": 100 * pooled[name].astype(float) for name in names})[COLUMNS]


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each kind of unit and text: what each criterion retains, and how much more than the reference."""
    places = data[["unit", "text"]].drop_duplicates().sort_values("unit", key=lambda own: own.map(list(UNITS).index))
    handles = [
        canvas.error_handle("95% interval", upright=False),
        canvas.line_handle("the difference is there", style.INK, "", "o"),
    ]
    counts = data.groupby(["unit", "text"]).size()
    heights = [_LINE * max(counts[place], _FEWEST) for place in places.itertuples(index=False, name=None)]
    sheet, axes = canvas.page(
        len(places), 2, title=title, caption=caption, handles=handles, sharex="none", sharey="row",
        row_height=sum(heights) / len(heights), height_ratios=heights,
    )  # fmt: skip
    for (unit, text), (left, right) in zip(places.itertuples(index=False), axes, strict=True):
        own = data[(data["unit"] == unit) & (data["text"] == text)].iloc[::-1]
        lines = np.arange(len(own))
        reference = own["against"].dropna().iloc[0] if own["against"].notna().any() else ""
        for ax, value, ends in (
            (left, "kept_percent", ["kept_low_percent", "kept_high_percent"]),
            (right, "difference_percent", ["low_percent", "high_percent"]),
        ):
            ax.hlines(lines, own[ends[0]], own[ends[1]], color=style.INK, linewidth=1.0, zorder=2)
            faces = [style.INK if ax is left or _told(row) else "white" for row in own.itertuples()]
            ax.scatter(own[value], lines, s=18, c=faces, edgecolors=style.INK, linewidths=0.9, zorder=3)
        left.set_ylim(-0.7, len(own) - 0.3)
        left.set_yticks(lines, [_name(row, int(own["cells"].max())) for row in own.itertuples()])
        # Few draws of a text give intervals far beyond what a score can be.
        for ax, (least, most) in ((left, _RETAINED), (right, _DIFFERENCE)):
            low, high = ax.get_xlim()
            ax.set_xlim(max(low, least), min(high, most))
        left.set_xlabel("retained (%)")
        right.axvline(0.0, color=style.INK, linewidth=style.THIN, zorder=1)
        right.set_xlabel("difference (points)")
        canvas.panel_title(left, f"{UNITS[unit]}, {text}" if text else UNITS[unit])
        canvas.panel_title(right, f"minus {reference}")
    return sheet


def _told(row: Any) -> bool:
    interval = Interval(row.difference_percent, row.low_percent, row.high_percent)
    return direction(interval) != UNDECIDED


def _name(row: Any, most: int) -> str:
    """Return a criterion, with the number of its cells where it lacks some: its mean is over other ones."""
    return str(row.criterion) if row.cells == most else f"{row.criterion} ({row.cells} of {most} cells)"
