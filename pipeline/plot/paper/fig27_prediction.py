"""Retained share of the score: predicted by a fit to cheap measures of other pruners, against measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pipeline.analysis.prediction import PREDICTORS, REPRESENTATIONS, TooLittle, features, targets
from pipeline.analysis.prediction_accuracy import accuracy, compete
from pipeline.analysis.prediction_data import BASELINES
from pipeline.analysis.score_means import KINDS
from pipeline.evaluate.comparison import MEAN
from pipeline.plot import canvas, style
from pipeline.plot.base import Figure, Selection, column_if_one
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, precedence

SHOWN = {name: PREDICTORS[name] for name in (REPRESENTATIONS, *BASELINES)}
# Names of the baselines in a caption.
NAMES = {"perplexity": "perplexity", "cosine": "cosine of final states", "parameters": "number of parameters removed"}
PERCENT = ["measured_percent", "predicted_percent", "low_percent", "high_percent"]
STATISTICS = ["error", "rank", "rank_low", "rank_high"]
SOURCE = "source"  # the column of the CSV with the predictor
COLUMNS = ["kind", SOURCE, *VARIANT, *PERCENT, *STATISTICS]
FURTHEST = (-1e3, 1e3)  # percent: intervals are cut off beyond
NARROWEST = 60.0  # percent: panels reach down to at least this
SIDE = 2.1  # inches: the height of a panel


def select(tables: Tables) -> Selection:
    """Select the predicted means of each setting and kind, by representations and by the baseline of least error."""
    try:
        rows = compete(features(tables), targets(tables), SHOWN)
    except TooLittle as error:
        raise MissingData(str(error)) from error
    found = accuracy(rows)
    kinds = [kind for kind in KINDS if (found["kind"] == kind).any()]
    parts = []
    for kind in kinds:
        own = found[found["kind"] == kind]
        plain = own[own["predictor"] != REPRESENTATIONS].nsmallest(1, "error")
        for _, judged in pd.concat([own[own["predictor"] == REPRESENTATIONS], plain]).iterrows():
            mine = rows[(rows["kind"] == kind) & (rows["task"] == MEAN) & (rows["predictor"] == judged["predictor"])]
            parts.append(mine.assign(**{name: judged[name] for name in STATISTICS}))
    data = pd.concat(parts, ignore_index=True).dropna(subset=["kept", "predicted"])
    values = dict(zip(PERCENT, ("kept", "predicted", "low", "high"), strict=True))
    data = data.assign(**{name: 100 * data[of] for name, of in values.items()}).rename(columns={"predictor": SOURCE})
    single = rows[rows["task"] != MEAN]
    tasks = [f"{KINDS[kind]}: {', '.join(sorted(set(single.loc[single['kind'] == kind, 'task'])))}." for kind in kinds]
    return Selection("Retained score, predicted from other pruners", data[COLUMNS], _notes(data, found, tasks))


def _notes(data: pd.DataFrame, found: pd.DataFrame, tasks: list[str]) -> tuple[str, ...]:
    tried = [NAMES[name] for name in found["predictor"].unique() if name != REPRESENTATIONS]
    said = f"Below: the best of {', '.join(tried)} by error." if tried else "No baseline was measured."
    shown = data.drop_duplicates(VARIANT)
    return (
        "Fraction of the mean score above chance, (pruned − chance) / (dense − chance).",
        *tasks,
        f"Each of the {len(shown)} points is one setting of {shown['pruner'].nunique()} pruners, predicted by a"
        " fit to all other pruners; all draws of a random pruner are left out together.",
        "Bars: 95% prediction interval.",
        f"Above: mean KL on the dense model's tokens, over all tokens and over those it is most confident in. {said}",
        "ρ: Spearman's rank correlation with its 95% bootstrap interval over pruners; error: mean absolute, in points.",
    )


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a column for each kind of task, with representations above and the best baseline below."""
    kinds = [kind for kind in KINDS if (data["kind"] == kind).any()]
    data = data.assign(family=data["pruner"])
    looks = _looks(data["family"])
    handles = [canvas.line_handle(name, colour, "", marker) for name, (colour, marker) in looks.items()]
    handles.append(canvas.error_handle("95% prediction interval"))
    both = (data[SOURCE] != REPRESENTATIONS).any()
    sheet, axes = canvas.page(
        2 if both else 1,
        len(kinds),
        title=title,
        caption=caption,
        handles=handles,
        sharex="none",
        row_height=SIDE,
    )
    for column, kind in zip(axes.T, kinds, strict=True):
        own = data[data["kind"] == kind]
        limits = _limits(own)
        for ax, first in zip(column, (True, False), strict=False):
            part = own[(own[SOURCE] == REPRESENTATIONS) == first]
            if part.empty:
                canvas.empty_panel(ax, "no baseline was measured")
                continue
            _panel(ax, part, looks, limits)
    return sheet


def _looks(families: pd.Series) -> dict[str, tuple[str, str]]:
    """Return the colour and marker of each family, in the order of the legend."""
    colours, markers = style.pruner_colours(families), style.pruner_markers(families)
    return {name: (colours[name], markers[name]) for name in sorted(colours, key=precedence)}


def _panel(ax: Axes, own: pd.DataFrame, looks: dict[str, tuple[str, str]], limits: tuple[float, float]) -> None:
    ax.plot(limits, limits, color=style.GREY, linewidth=style.THIN, zorder=1)
    for family, rows in own.groupby("family"):
        colour, marker = looks[str(family)]
        x, y, low, high = (rows[name].to_numpy(dtype=float) for name in PERCENT)
        ax.vlines(
            x, np.clip(low, *FURTHEST), np.clip(high, *FURTHEST),
            color=colour, linewidth=0.8, alpha=style.FAINT_ALPHA, zorder=2,
        )  # fmt: skip
        ax.plot(x, y, marker, color=colour, markersize=4, zorder=3)
    ax.set_xlim(*limits)
    ax.set_ylim(*limits)
    first = own.iloc[0]
    ax.set_xlabel(f"measured, {KINDS[first['kind']].lower()} (%)")
    ax.set_ylabel(f"predicted by {first[SOURCE]} (%)")
    rank, low, high = (float(first[name]) for name in STATISTICS[1:])
    said = f"ρ = {rank:.2f} [{low:.2f}, {high:.2f}]".replace("-", "\u2212")
    canvas.panel_title(ax, said if np.isfinite(rank) else "ρ undefined: all values equal")
    ax.text(
        0.97, 0.04, f"error {100 * float(first['error']):.1f}", transform=ax.transAxes,
        size=style.SMALL_SIZE, color=style.GREY, ha="right", va="bottom",
    )  # fmt: skip


def _limits(own: pd.DataFrame) -> tuple[float, float]:
    """Return limits that hold all points, `NARROWEST` and the dense model (100), with a margin."""
    values = np.append(own[PERCENT[:2]].to_numpy(dtype=float).ravel(), [NARROWEST, 100.0])
    air = 0.05 * float(np.ptp(values))
    return float(values.min()) - air, float(values.max()) + air


FIGURE = Figure(select, draw, version=3, span=column_if_one("kind"))
