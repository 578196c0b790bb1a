"""Measured deviation of p (theorem 2) and KL (theorem 3) with their estimates, shared by fig06 and fig11."""

from __future__ import annotations

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.typing import LineStyleType

from pipeline.analysis import series
from pipeline.analysis.theorems import OF_KL, OF_P
from pipeline.plot import canvas, scales, style

THEOREMS = (OF_P, OF_KL)
COLUMNS = [column for theorem in THEOREMS for column in theorem.columns]
QUANTITIES = {theorem.quantity: theorem.symbol for theorem in THEOREMS}
FORMULAS = f"Estimates: {OF_P.estimate} for the deviation, {OF_KL.estimate} for KL (nats)."
# Source -> colour, line and its width.
SOURCES: dict[str, tuple[str, LineStyleType, float]] = {
    "measured": (style.SPACE_COLOURS["p"], "-", style.UNDER),
    "estimate": (style.ESTIMATE_COLOUR, (0, (3, 1.5)), style.OVER),
}


def values_of(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the measured and the estimated value of each row, by "quantity, source"."""
    values = {}
    for theorem in THEOREMS:
        values[f"{theorem.quantity}, measured"] = theorem.measured(rows)
        values[f"{theorem.quantity}, estimate"] = theorem.estimated(rows)
    return values


def split_sources(steps: pd.DataFrame) -> pd.DataFrame:
    """Split the source off into a separate column after the quantity, for aggregated `values_of`."""
    names = steps["quantity"].str.split(", ", expand=True)
    steps = steps.assign(quantity=names[0])
    steps.insert(steps.columns.get_loc("quantity") + 1, "source", names[1])
    return steps


def handles() -> list[Artist]:
    """Return the legend entries: measured and estimate, line and band."""
    looks = [canvas.line_handle(source, colour, line, width=width) for source, (colour, line, width) in SOURCES.items()]
    return [*looks, *canvas.statistic_handles()]


def panel(ax: Axes, own: pd.DataFrame, shared: pd.DataFrame) -> None:
    """Draw both sources over steps, on an axis that fits all panels of the quantity.

    Args:
        own: the rows of this panel.
        shared: the rows of all panels with the same quantity.
    """
    for source, (colour, line, width) in SOURCES.items():
        curve = own[own["source"] == source]
        canvas.line_and_band(ax, curve["step"], curve, colour, line, width=width)
    scales.decade_axis(ax, shared[series.STATISTICS].to_numpy().ravel())
    scales.whole_steps(ax)
