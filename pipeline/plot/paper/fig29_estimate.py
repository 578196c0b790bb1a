"""Divergence from removing one unit alone: the cheap estimate against the measurement."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from scipy.stats import spearmanr

from pipeline.plot import canvas, scales, style
from pipeline.plot.base import Figure, Selection, column_if_one
from pipeline.plot.point_labels import PointLabel, place_labels
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import magnitude

ALONE = -1
EXACT, ESTIMATE = "divergence", "divergence_estimate"
MARKS = {"attention": ("o", "attention sublayer"), "mlp": ("s", "MLP sublayer"), "block": ("^", "block")}
SUBLAYERS = ("attention", "mlp")
KEYS = ["sublayer", "layer"]
LEAST = 3  # units that have both values, without which there is no rank correlation
ABREAST = 3
SIDE = 2.4  # inches: the height of the panels
NAMED = 3  # how many of the units furthest from the line a panel names
COLUMNS = ["pruner", *KEYS, "measured", "estimated", "rank", "shared", "count"]


def select(tables: Tables) -> Selection:
    """Select both values of every unit, for each ranking that was made both ways, and how far the ranks agree."""
    rankings = tables.rankings
    pruners = set() if rankings.empty else set(rankings["pruner"])
    parts = [
        _both(rankings, name, name.replace(EXACT, ESTIMATE))
        for name in sorted(pruners)
        if name.startswith(EXACT) and not name.startswith(ESTIMATE) and name.replace(EXACT, ESTIMATE) in pruners
    ]
    if not parts:
        raise MissingData("no units were ranked both by divergence and by its estimate under these settings")
    parts = [part for part in parts if len(part) >= LEAST]
    if not parts:
        raise MissingData(
            "divergence gave up most units before it had measured them alone in full; run it with pruner.lazy=true"
        )
    data = pd.concat(parts, ignore_index=True)
    notes = (
        f"Each of the {_count(data)} points of a panel is one unit removed alone; mean KL per token on the calibration"
        " text (trajectories and shots: text that the dense model wrote).",
        "Estimated: theorem 3 to first order through all later layers, from one forward pass and a few backward "
        "passes.",
        f"Numbers: layers of the {NAMED} units furthest from the line.",
        "ρ: Spearman's rank correlation. In the corner: how many of the chosen units are the same for both.",
    )
    return Selection("Estimated against measured divergence", data[COLUMNS], notes)


def _count(data: pd.DataFrame) -> str:
    counts = data.groupby("pruner").size()
    return f"{counts.max()}" if counts.nunique() == 1 else f"{counts.min()} to {counts.max()}"


def _both(rankings: pd.DataFrame, exact: str, estimate: str) -> pd.DataFrame:
    one, other = (_largest(rankings[rankings["pruner"] == name]) for name in (exact, estimate))
    alone = [rows[(rows["step"] == ALONE) & _in_full(rows)].set_index(KEYS)["score"] for rows in (one, other)]
    both = pd.concat(alone, axis=1, keys=["measured", "estimated"], join="inner").reset_index()
    paths = [_taken(rows) for rows in (one, other)]
    count = min(map(len, paths))
    first, second = (set(path[:count]) for path in paths)
    rank = float(spearmanr(both["measured"], both["estimated"]).statistic)
    return both.assign(pruner=exact, rank=rank, shared=len(first & second), count=count)


def _in_full(rows: pd.DataFrame) -> pd.Series:
    """Return which rows were measured on the whole text: the others have lower bounds."""
    return rows["measured"].isna() | (rows["measured"] == 1) if "measured" in rows else rows["score"].notna()


def _taken(rows: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the units of a path in order; a block counts as its two sublayers if sublayers are ranked, too."""
    path = rows[rows["step"] != ALONE].sort_values("step")
    units = [(str(kind), int(layer)) for kind, layer in path[KEYS].itertuples(index=False)]
    if set(rows["sublayer"]) == {"block"}:
        return units
    return [(part, layer) for kind, layer in units for part in (SUBLAYERS if kind == "block" else (kind,))]


def _largest(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of the longest path, which contains the shorter ones."""
    words = rows["sparsity"].unique()
    return rows[rows["sparsity"] == max(words, key=magnitude)]


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a panel for each kind of ranking, with both axes logarithmic."""
    pruners = list(dict.fromkeys(data["pruner"]))
    kinds = [kind for kind in MARKS if (data["sublayer"] == kind).any()]
    colours = dict(zip(MARKS, style.SPACE_COLOURS.values(), strict=True))
    handles = [canvas.line_handle(MARKS[kind][1], colours[kind], "", MARKS[kind][0]) for kind in kinds]
    columns = 2 if len(pruners) == 4 else min(ABREAST, len(pruners))
    rows = math.ceil(len(pruners) / columns)
    sheet, axes = canvas.page(
        rows,
        columns,
        title=title,
        caption=caption,
        handles=handles,
        sharex="none",
        row_height=SIDE if rows == 1 else None,
    )
    for ax, pruner in zip(axes.flat, pruners, strict=False):
        _panel(ax, data[data["pruner"] == pruner], colours)
    for ax in axes.flat[len(pruners) :]:
        ax.set_axis_off()  # so that the panel above it shows the labels
    canvas.outer_labels(axes, "measured KL (nats per token)", "estimated KL (nats per token)")
    for ax in axes.flat[len(pruners) :]:
        ax.remove()
    canvas.settle(sheet)  # labels are placed where the panels are
    for ax, pruner in zip(axes.flat, pruners, strict=False):
        _name_furthest(ax, data[data["pruner"] == pruner])
    return sheet


def _panel(ax: Axes, own: pd.DataFrame, colours: dict[str, str]) -> None:
    values = own[["measured", "estimated"]].to_numpy(dtype=float).ravel()
    for which in ("x", "y"):
        scales.signed_axis(ax, which, values)
    limits = ax.get_xlim()
    ax.plot(limits, limits, color=style.GREY, linewidth=style.THIN, zorder=1)
    for kind, rows in own.groupby("sublayer"):
        ax.plot(rows["measured"], rows["estimated"], MARKS[kind][0], color=colours[kind], markersize=4, zorder=2)
    first = own.iloc[0]
    canvas.panel_title(ax, str(first["pruner"]))
    said = f"ρ = {first['rank']:.2f}\n{first['shared']} of {first['count']} chosen by both".replace("-", "\u2212")
    ax.text(
        0.03, 0.97, said, transform=ax.transAxes,
        size=style.SMALL_SIZE, color=style.GREY, ha="left", va="top",
    )  # fmt: skip


def _name_furthest(ax: Axes, own: pd.DataFrame) -> None:
    """Write the layers of the units whose estimate is furthest off beside their points."""
    off = np.abs(np.log(own["estimated"] / own["measured"])).nlargest(NAMED).index
    rows, others = own.loc[off], own.drop(off)
    labels = [PointLabel(row.measured, row.estimated, f"{row.layer}", style.GREY) for row in rows.itertuples()]
    place_labels(ax, labels, list(others[["measured", "estimated"]].itertuples(index=False, name=None)))


FIGURE = Figure(select, draw, version=4, span=column_if_one("pruner"))
