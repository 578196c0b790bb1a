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
from pipeline.tables.read import WEIGHT, Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import magnitude, precedence

UNITS = {"attention": "attention sublayers", "mlp": "MLP sublayers", "sublayer": "sublayers", "block": "blocks"}
UNITS |= {"weight": "weights"}
ACROSS = 0.5  # share of the width of a budget that its points spread over
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
        "Below: how much more a divergence criterion (marker) retains than another criterion (colour), paired"
        " by item; filled where the interval excludes zero.",
        "Bars: 95% interval over items.",
        *drawn,
        *(
            [f"Means over {max(data['seeds'])} seeds; the intervals include their variation."]
            if max(data["seeds"]) > 1
            else []
        ),
    )


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a column for each kind of unit: retained scores above, differences below."""
    data = data.fillna({"against": ""})
    units = list(dict.fromkeys(data["unit"]))
    pruners = dict(zip(data["criterion"], data["pruner"], strict=True))
    names = sorted(pruners, key=lambda name: (precedence(pruners[name]), name))
    colours, markers = style.line_looks(pruners)
    handles = [canvas.line_handle(name, colours[name], "", markers[name]) for name in names]
    handles.append(canvas.error_handle("95% interval over items"))
    sheet, axes = canvas.page(
        2,
        len(units),
        title=title,
        caption=caption,
        handles=handles,
        sharey="row",
    )
    for column, unit in zip(axes.T, units, strict=True):
        own = data[data["unit"] == unit]
        budgets = sorted(set(own["sparsity"]), key=magnitude)
        kept, pairs = own[own["against"] == ""], own[own["against"] != ""]
        _points(column[0], kept, PERCENT, kept["criterion"], budgets, colours, markers)
        # A difference has the colour of the criterion it is taken against, and the marker of the one by divergence.
        _points(column[1], pairs, MORE, pairs["against"], budgets, colours, markers, hollow=True)
        low, high = column[0].get_ylim()
        column[0].set_ylim(min(0.0, low), max(104.0, high))
        column[0].set_yticks([tick for tick in column[0].get_yticks() if min(0.0, low) <= tick <= max(104.0, high)])
        column[0].axhline(100.0, color=style.INK, linewidth=style.THIN, zorder=1)
        column[1].axhline(0.0, color=style.INK, linewidth=style.THIN, zorder=1)
        column[1].set_xticks(range(len(budgets)), budgets)
        column[1].set_xlim(-0.5, len(budgets) - 0.5)
        column[1].set_xlabel("fraction removed" if unit == WEIGHT else "number removed")
        canvas.panel_title(column[0], UNITS[unit])
    axes[0, 0].set_ylabel("retained (%)")
    axes[1, 0].set_ylabel("retained more by divergence\nthan by … (points)")
    sheet.align_ylabels(axes[:, 0])
    return sheet


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
        for offset, name, who, (value, low, high) in zip(offsets, called, own["criterion"], values, strict=True):
            ax.vlines(place + offset, low, high, color=colours[name], linewidth=1.0, zorder=2)
            face = "white" if hollow and low <= 0 <= high else colours[name]
            ax.plot(
                place + offset, value, markers[who], color=colours[name], markerfacecolor=face, markersize=4, zorder=3
            )


FIGURE = Figure(select, draw, version=2)
