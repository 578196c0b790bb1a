"""Retained share of the dense score above chance, with intervals from paired items, for every variant."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from pipeline.analysis.score_changes import with_pooled
from pipeline.analysis.score_means import KINDS
from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.verdict import KEPT, LOST, MARGIN, UNDECIDED
from pipeline.plot import canvas, style
from pipeline.plot.base import Figure, Selection, column_if_one
from pipeline.plot.variant_notes import left_out_note
from pipeline.plot.wrapping import wrap
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, Variant, rows_of, spread, variants_of

ROWS = 36
ROW_HEIGHT = 0.165  # inches
NAME = 0.3  # of the width of the page: the most that the name of a variant takes beside its row
NAME_LINE = 0.12  # inches: the height of each line of a name
BELOW = 0.28  # rows from a mean to its single tasks
FURTHEST = (-50.0, 200.0)  # percent: intervals are cut off beyond
UNCERTAIN = (0, (2, 1.5))
LIMITS = ["retained_percent", "low_percent", "high_percent"]
VERDICT = "label"  # the column of the CSV with the verdict on a score
COLUMNS = ["kind", *VARIANT, "series", "n", "chance", "dense", "pruned", "difference", "low", "high", "p"]


def select(tables: Tables) -> Selection:
    """Select dense and pruned score, difference and retained share of each task and mean, with intervals."""
    compared = with_pooled(tables.comparisons)
    if compared.empty or not compared["kind"].isin(KINDS).any():
        raise MissingData("no pruned model's items were compared with the dense model's under these settings")
    compared = compared[compared["kind"].isin(KINDS)]
    shown, left_out = spread(variants_of(compared), ROWS)
    data = _sorted(rows_of(compared, shown))
    data = data.assign(
        **{name: 100 * data[of] for name, of in zip(LIMITS, ("retained", "retained_low", "retained_high"), strict=True)}
    )
    if not np.isfinite(data.loc[data["series"] == MEAN, LIMITS[0]].to_numpy(dtype=float)).any():
        raise MissingData("the dense model is not clearly above chance in any kind of task, so nothing can be retained")
    notes = (
        "Retained: (pruned − chance) / (dense − chance), 100% is the dense model, 0% is guessing; bars: 95% interval"
        " over items (Fieller), both models on the same items; small dots: single tasks.",
        f"Verdicts are on the score: kept if it fell by {100 * MARGIN:g} points at most, by the whole interval of the"
        " difference; lost if by more; cannot be told if the interval holds both.",
        f"No signal: the dense model is not clearly above chance, or by no more than {100 * MARGIN:g} points.",
        *_mean_notes(data),
        *left_out_note(left_out),
    )
    return Selection("Score above chance retained after pruning", data[[*COLUMNS, *LIMITS, VERDICT]], notes)


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by kind and variant, the mean before its tasks."""
    order = {variant: place for place, variant in enumerate(variants_of(rows))}
    keys = rows.assign(
        block=rows["kind"].map(list(KINDS).index),
        row=[order[Variant(*pair)] for pair in rows[VARIANT].itertuples(index=False)],
        is_task=rows["task"] != MEAN,
    )
    ranked = keys.sort_values(["block", "row", "is_task", "task"], kind="stable")
    return ranked.rename(columns={"task": "series", "verdict": VERDICT}).reset_index(drop=True)


def _mean_notes(data: pd.DataFrame) -> list[str]:
    """Return notes on how many tasks the means are over, or that no task of a kind was asked of all variants."""
    first = data.drop_duplicates("kind").set_index("kind")
    notes = []
    for kind in first.index:
        own = data[data["kind"] == kind]
        variants = len(variants_of(own))
        counts = own[own["series"] != MEAN].groupby("series").size()
        shared = sorted(counts[counts == variants].index)
        items = own.loc[own["series"] == MEAN, "n"]
        size = f" ({int(items.max())} items in all)" if len(items) else ""
        said = f"mean over {', '.join(shared)}{size}." if shared else "no task was evaluated for every variant."
        notes.append(f"{KINDS[kind]}: {said}")
    return notes


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a panel for each kind of task, a row for each variant."""
    variants, kinds = variants_of(data), [kind for kind in KINDS if (data["kind"] == kind).any()]
    colours = style.pruner_colours(variant.pruner for variant in variants)
    names = [wrap(variant.label, style.SMALL_SIZE, NAME * style.width()) for variant in variants]
    height = max(ROW_HEIGHT, 0.03 + NAME_LINE * max(map(len, names)))
    handles = _handles(data)
    sheet, axes = canvas.page(
        1,
        len(kinds),
        title=title,
        caption=caption,
        handles=handles,
        row_height=max(1.2, height * len(variants)),
        sharey="row",
    )
    for kind, ax in zip(kinds, axes[0], strict=True):
        own = data[data["kind"] == kind]
        for place, variant in enumerate(variants):
            _row(ax, rows_of(own, [variant]), place, colours[variant.pruner])
        ax.axvline(100.0, color=style.INK, linewidth=style.THIN, zorder=1)
        ax.axvline(0.0, color=style.GREY, linewidth=style.THIN, linestyle=UNCERTAIN, zorder=1)
        low, high = _limits(own)
        ax.set_xlim(low, high)
        ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
        ax.set_xlabel("retained above chance (%)")
        canvas.panel_title(ax, KINDS[kind])
    axes[0, 0].set_yticks(range(len(variants)), ["\n".join(name) for name in names], parse_math=False)
    axes[0, 0].set_ylim(len(variants) - 0.4, -0.6)
    return sheet


def _handles(data: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries: the verdicts that occur by marker, what bars are, and single tasks."""
    handles, verdicts = [], set(data[VERDICT])
    for verdict in [word for word in (KEPT, LOST, UNDECIDED) if word in verdicts]:
        colour = style.GREY if verdict == UNDECIDED else style.INK
        handle = canvas.line_handle(verdict, colour, UNCERTAIN if verdict == UNDECIDED else "-", "o")
        handle.set_markerfacecolor(colour if verdict == LOST else "white")
        handles.append(handle)
    handles.append(canvas.error_handle("95% interval over items", upright=False))
    if (data["series"] != MEAN).any():
        handles.append(canvas.line_handle("single task", style.GREY, "", "."))
    return handles


def _row(ax: Axes, own: pd.DataFrame, place: int, colour: str) -> None:
    """Draw the mean of one variant with its interval, and its single tasks below."""
    tasks = own.loc[own["series"] != MEAN, "retained_percent"].dropna()
    if len(tasks) > 1:
        ax.plot(
            tasks, [place + BELOW] * len(tasks), ".", color=colour, alpha=style.FAINT_ALPHA, markersize=3.5, zorder=2
        )
    mean = own[own["series"] == MEAN]
    if mean.empty:
        return
    value, low, high = (float(mean[name].iloc[0]) for name in LIMITS)
    verdict = str(mean[VERDICT].iloc[0])
    if not np.isfinite(value):
        _say(ax, place, verdict)
        return
    edge = style.GREY if verdict == UNDECIDED else colour
    ax.plot(
        np.clip([low, high], -1e6, 1e6), [place, place],
        color=edge, linewidth=1.1, linestyle=UNCERTAIN if verdict == UNDECIDED else "-", zorder=3,
    )  # fmt: skip
    ax.plot(
        [value], [place], "o",
        markersize=4.5, markeredgecolor=edge, markerfacecolor=edge if verdict == LOST else "white", zorder=4,
    )  # fmt: skip


def _say(ax: Axes, place: int, verdict: str) -> None:
    """Write a verdict in the middle of the row, whatever the limits of the panel will be."""
    ax.text(
        0.5, place, verdict, transform=ax.get_yaxis_transform(),
        size=style.SMALL_SIZE, color=style.GREY, ha="center", va="center",
    )  # fmt: skip


def _limits(own: pd.DataFrame) -> tuple[float, float]:
    """Return limits that span at least chance (0) to the dense model (100), with room for the markers."""
    means = own.loc[own["series"] == MEAN, LIMITS].to_numpy(dtype=float).ravel()
    values = np.concatenate([means, own["retained_percent"].to_numpy(dtype=float)])
    finite = np.clip(np.append(values[np.isfinite(values)], [0.0, 100.0]), *FURTHEST)
    air = 0.05 * float(np.ptp(finite))
    return float(finite.min()) - air, float(finite.max()) + air


FIGURE = Figure(select, draw, version=4, span=column_if_one("kind"))
