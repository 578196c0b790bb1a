"""Score that criteria retain at the same budget of units, and how much more criteria by divergence retain."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pipeline.analysis.criteria import criteria
from pipeline.analysis.score_means import KINDS
from pipeline.evaluate.comparison import MEAN
from pipeline.plot import canvas, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.wrapping import wrap
from pipeline.tables.read import WEIGHT, Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import magnitude, precedence

UNITS = {"attention": "attention sublayers", "mlp": "MLP sublayers", "sublayer": "sublayers", "block": "blocks"}
UNITS |= {"weight": "weights"}
ACROSS = 0.6  # share of the width of a budget that its points spread over
PERCENT = ["kept_percent", "kept_low_percent", "kept_high_percent"]
MORE = ["difference_percent", "low_percent", "high_percent"]
VALUES = dict(zip([*PERCENT, *MORE], ("kept", "kept_low", "kept_high", "difference", "low", "high"), strict=True))
COLUMNS = [
    "kind",
    "unit",
    "sparsity",
    "criterion",
    "pruner",
    "draws",
    "seeds",
    "tasks",
    "n",
    *PERCENT,
    "against",
    *MORE,
]


def select(tables: Tables) -> Selection:
    """Select the retained mean score of generation, or else of the first kind there is, by unit and budget."""
    found = criteria(tables)
    kinds = [kind for kind in KINDS if not found.empty and (found["kind"] == kind).any()]
    units = [] if found.empty else found.loc[found["against"] != "", "unit"].unique()
    if not kinds or not len(units):
        raise MissingData(
            "no divergence criterion was evaluated at the same sparsity as another criterion under these settings"
        )
    data = found[(found["kind"] == kinds[0]) & found["unit"].isin(units)]
    data = data.assign(**{name: 100 * data[of].astype(float) for name, of in VALUES.items()})
    compared = tables.comparisons
    names = sorted(set(compared.loc[compared["kind"] == kinds[0], "task"]) - {MEAN})
    data["place"] = data["unit"].map(list(UNITS).index)
    data = data.sort_values(["place", "against"], kind="stable")
    return Selection("Score retained by pruning criteria at equal budget", data[COLUMNS], _notes(data, names))


def _notes(data: pd.DataFrame, names: list[str]) -> tuple[str, ...]:
    many = data[data["draws"] > data["seeds"]].groupby("criterion")["draws"].max()
    drawn = [f"{name}: mean of {count} draws; the interval includes their variation." for name, count in many.items()]
    tasks = sorted(set(data["tasks"]))
    over = f"{tasks[0]} tasks" if len(tasks) == 1 else f"{tasks[0]} to {tasks[-1]} tasks"
    least, most = int(data["n"].min()), int(data["n"].max())
    items = f"{most}" if least == most else f"{least} to {most}"
    return (
        f"{KINDS[data['kind'].iloc[0]]} ({', '.join(names)}): mean over {over}, {items} items in all; 100% is the dense"
        " model's score above chance.",
        "Differences: how much more a criterion by divergence retains than each of the others, paired by item; filled"
        " where the interval excludes zero.",
        "Bars: 95% interval over items.",
        *drawn,
        *(
            [f"Means over {max(data['seeds'])} seeds; the intervals include their variation."]
            if max(data["seeds"]) > 1
            else []
        ),
    )


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each kind of unit: retained scores, then the differences to each criterion by divergence."""
    data = data.fillna({"against": ""})
    units = list(dict.fromkeys(data["unit"]))
    pruners = dict(zip(data["criterion"], data["pruner"], strict=True))
    colours, markers = style.line_looks(pruners)
    names = sorted(pruners, key=lambda name: (precedence(pruners[name]), name))
    handles = [canvas.line_handle(name, colours[name], "", markers[name]) for name in names]
    handles.append(canvas.error_handle("95% interval over items"))
    rivals = {unit: _by_divergence(data[data["unit"] == unit]) for unit in units}
    count = 1 + max(map(len, rivals.values()))
    sheet, axes = canvas.page(
        len(units),
        count,
        title=title,
        caption=caption,
        handles=handles,
        sharex="none",
    )
    for row, unit in zip(axes, units, strict=True):
        own = data[data["unit"] == unit]
        budgets = sorted(set(own["sparsity"]), key=magnitude)
        _kept(row[0], own[own["against"] == ""], budgets, colours, markers)
        canvas.panel_title(row[0], UNITS[unit])
        row[0].set_xlabel("fraction removed" if unit == WEIGHT else "number removed")
        for ax, rival in zip(row[1:], rivals[unit], strict=False):
            pairs = own[(own["against"] != "") & (own["criterion"] == rival)]
            _points(ax, pairs, MORE, pairs["against"], budgets, colours, markers, hollow=True)
            ax.axhline(0.0, color=style.INK, linewidth=style.THIN, zorder=1)
            ax.set_ylim(*_limits(own))
            room = style.width() / count - 0.5
            canvas.panel_title(ax, "\n".join(wrap(f"{rival} minus \u2026", style.TEXT_SIZE, room)))
        row[1].set_ylabel("difference (points)")
        for ax in row[1 + len(rivals[unit]) :]:
            ax.remove()
    return sheet


def _by_divergence(own: pd.DataFrame) -> list[str]:
    """Return the criteria by divergence that others are compared with, the exact ones first."""
    return list(dict.fromkeys(own.loc[own["against"] != "", "criterion"].sort_values()))


def _kept(ax: Axes, kept: pd.DataFrame, budgets: list[str], colours: dict[str, str], markers: dict[str, str]) -> None:
    _points(ax, kept, PERCENT, kept["criterion"], budgets, colours, markers)
    low, high = ax.get_ylim()
    ax.set_ylim(min(0.0, low), max(104.0, high))
    ax.set_yticks([tick for tick in ax.get_yticks() if min(0.0, low) <= tick <= max(104.0, high)])
    ax.axhline(100.0, color=style.INK, linewidth=style.THIN, zorder=1)
    ax.set_ylabel("retained (%)")


def _limits(own: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of all differences of a kind of unit, and of zero, with some air."""
    values = np.append(own[MORE].to_numpy(dtype=float).ravel(), 0.0)
    low, high = np.nanmin(values), np.nanmax(values)
    air = 0.08 * (high - low) or 1.0
    return float(low - air), float(high + air)


def _points(
    ax: Axes,
    rows: pd.DataFrame,
    columns: list[str],
    names: pd.Series,
    budgets: list[str],
    colours: dict[str, str],
    markers: dict[str, str],
    hollow: bool = False,
) -> None:
    """Draw values with their intervals, side by side at each budget; if `hollow`, hollow where zero is inside."""
    for place, budget in enumerate(budgets):
        own, called = rows[rows["sparsity"] == budget], names[rows["sparsity"] == budget]
        offsets = np.linspace(-ACROSS / 2, ACROSS / 2, len(own)) if len(own) > 1 else np.zeros(len(own))
        values = own[columns].to_numpy(dtype=float)
        for offset, name, (value, low, high) in zip(offsets, called, values, strict=True):
            ax.vlines(place + offset, low, high, color=colours[name], linewidth=1.0, zorder=2)
            face = "white" if hollow and low <= 0 <= high else colours[name]
            ax.plot(
                place + offset, value, markers[name], color=colours[name], markerfacecolor=face, markersize=4, zorder=3
            )
    ax.set_xticks(range(len(budgets)), budgets)
    ax.set_xlim(-0.5, len(budgets) - 0.5)


FIGURE = Figure(select, draw, version=3)
