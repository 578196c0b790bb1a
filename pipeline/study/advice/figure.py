"""Figure of the retained score over the share of parameters removed: measured points, predicted lines, the limit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pipeline.analysis.score_means import KINDS
from pipeline.plot import canvas, style
from pipeline.tables.variants import precedence

MEASURED, PREDICTED = "measured", "predicted"
# One row for each setting, kind of task and source; low and high are the limits of its interval.
COLUMNS = [
    "kind", "pruner", "sparsity", "label", "source", "removed", "removed_percent",
    "kept_percent", "low_percent", "high_percent", "keep_percent",
]  # fmt: skip
UNITS = {
    "attention": "attention sublayers",
    "mlp": "MLP sublayers",
    "sublayer": "sublayers",
    "block": "blocks",
    "weight": "weights (zeroed)",
}
_LIMIT_LINE = (0, (4, 2))
# Percentages beyond which intervals are cut off.
_LOWEST, _HIGHEST = -20.0, 130.0
_AIR = 4.0


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each kind of task, a column for each kind of unit, and in each panel a line for each pruner."""
    kinds = [kind for kind in KINDS if (data["kind"] == kind).any()]
    units = [unit for unit in UNITS.values() if (data["label"] == unit).any()]
    pruners = sorted(set(data["pruner"]), key=precedence)
    colours, markers = style.pruner_colours(pruners), style.pruner_markers(pruners)
    handles = _handles(data, colours, markers)
    sheet, axes = canvas.page(
        len(kinds),
        len(units),
        title=title,
        caption=caption,
        handles=handles,
        sharey="row",
    )
    for kind, row in zip(kinds, axes, strict=True):
        for unit, ax in zip(units, row, strict=True):
            own = data[(data["kind"] == kind) & (data["label"] == unit)]
            for pruner in pruners:
                _curve(ax, own[own["pruner"] == pruner], colours[pruner], markers[pruner])
            ax.axhline(
                float(data["keep_percent"].iloc[0]), color=style.INK, linewidth=style.THIN, linestyle=_LIMIT_LINE
            )
            ax.set_xlim(left=0.0)
            canvas.panel_title(ax, unit if len(kinds) == 1 else f"{KINDS[kind]}: {unit}")
        row[0].set_ylim(*_limits(data[data["kind"] == kind]))
    canvas.outer_labels(axes, "parameters removed (%)", "retained above chance (%)")
    return sheet


def _handles(data: pd.DataFrame, colours: dict[str, str], markers: dict[str, str]) -> list[Artist]:
    """Return the legend's handles: the pruners, the limit, and what bars, lines and bands are."""
    handles: list[Artist] = [canvas.line_handle(name, colours[name], marker=markers[name]) for name in colours]
    handles.sort(key=lambda handle: precedence(str(handle.get_label())))
    limit = f"{float(data['keep_percent'].iloc[0]):g}% retained"
    intervals = [
        canvas.error_handle("measured, 95% interval"),
        *canvas.statistic_handles("predicted", "95% prediction interval"),
    ]
    present = [(data["source"] == name).any() for name in (MEASURED, PREDICTED, PREDICTED)]
    handles.append(canvas.line_handle(limit, style.INK, _LIMIT_LINE))
    return [*handles, *(handle for handle, shown in zip(intervals, present, strict=True) if shown)]


def _curve(ax: Axes, rows: pd.DataFrame, colour: str, marker: str) -> None:
    """Draw one pruner: the prediction with its band from the dense model on, and the measurements with intervals."""
    predicted = rows[rows["source"] == PREDICTED].sort_values("removed_percent")
    if len(predicted):
        x = np.append(0.0, predicted["removed_percent"])
        value, low, high = (
            np.append(100.0, np.clip(predicted[name], _LOWEST, _HIGHEST))
            for name in ("kept_percent", "low_percent", "high_percent")
        )
        ax.fill_between(x, low, high, color=colour, alpha=style.BAND_ALPHA / 1.5, linewidth=0)
        ax.plot(x, value, color=colour, linewidth=1.1)
    measured = rows[rows["source"] == MEASURED]
    if len(measured):
        ax.vlines(
            measured["removed_percent"],
            np.clip(measured["low_percent"], _LOWEST - _AIR, None),
            np.clip(measured["high_percent"], None, _HIGHEST + _AIR),
            color=colour, linewidth=1.1, zorder=3,
        )  # fmt: skip
        ax.plot(measured["removed_percent"], measured["kept_percent"], marker, color=colour, markersize=4.5, zorder=4)


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the axis limits, from guessing or below to the dense model or above."""
    values = rows[["kept_percent", "low_percent", "high_percent"]].to_numpy(dtype=float)
    finite = np.clip(np.append(values[np.isfinite(values)], [0.0, 100.0]), _LOWEST, _HIGHEST)
    return float(finite.min()) - _AIR, float(finite.max()) + _AIR
