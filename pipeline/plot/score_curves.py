"""Curves of scores against achieved sparsity: a row of panels for each kind of task, a column for each model."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pipeline.analysis.score_means import (
    CHANCE,
    KINDS,
    MEAN,
    PERCENT,
    POINT,
    axis_top,
    chance_name,
    chances,
    other_scales,
    shared_tasks,
    task_notes,
    task_scores,
    with_means,
)
from pipeline.plot import canvas, style
from pipeline.plot.base import Span
from pipeline.plot.point_labels import PointLabel, place_labels
from pipeline.plot.score_errors import SEEDS, error_name, with_seeds
from pipeline.plot.wrapping import wrap
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import DENSE, VARIANT, Variant, is_count, is_pattern, magnitude, precedence

CHANCE_LINE = (0, (4, 2))
FEW = 10  # lines of pruners beside which those of single tasks can be read
NARROW = 6  # lines whose legend is lower than the panels of a column


def curves(tables: Tables) -> tuple[pd.DataFrame, list[str]]:
    """Select task scores and their means per kind, pruner and sparsity of one model; return notes on the tasks, too.

    Raises:
        MissingData: if there is nothing to compare.
    """
    scores = task_scores(tables, KINDS)
    if (scores["pruner"] == DENSE).all():
        raise MissingData("only the dense model has scores for these settings")
    shared, dropped = shared_tasks(scores)
    if shared.empty:
        raise MissingData("no task has a score at every sparsity, so there is no mean to compare")
    data = with_seeds(with_means(shared), shared)
    data = data.assign(achieved_percent=100 * data["achieved"], is_task=data["series"] != MEAN)
    data = data.assign(size=data["sparsity"].map(magnitude))
    data = data if _few(data) else data[~data["is_task"]]
    data = data.sort_values(["kind", "is_task", "series", "pruner", "options", "achieved_percent", "size", "sparsity"])
    return data[["kind", *POINT, "series", "achieved_percent", *PERCENT, SEEDS, CHANCE]], [
        *task_notes(shared, dropped),
        *other_scales(tables, KINDS),
    ]


def line_notes(data: pd.DataFrame) -> list[str]:
    """Return sentences of the caption that explain the lines and numbers of the curves."""
    notes = [
        f"Thick: mean over tasks; error bars: its {error_name(data)}.",
        "Faint: single tasks." if (data["series"] != MEAN).any() else "Single tasks are not drawn among so many lines.",
    ]
    if data["sparsity"].map(is_pattern).any():
        notes.append("Dotted: from dense to an N:M pattern.")
    if data["sparsity"].map(is_count).any():
        notes.append("Integer labels: blocks or sublayers dropped.")
    if _named(data).any():
        notes.append("Points without room have no label, and points that touch may share one.")
    return notes


def span(data: pd.DataFrame) -> Span:
    """Return how wide the curves are in print: a column for one model, if its legend leaves room for them."""
    return "column" if data["model"].nunique() == 1 and _lines(data) <= NARROW else "page"


def _few(data: pd.DataFrame) -> bool:
    """Return whether there is room for the lines of single tasks."""
    return _lines(data) <= FEW


def _lines(data: pd.DataFrame) -> int:
    return len(data.loc[data["pruner"] != DENSE, ["pruner", "options"]].drop_duplicates())


def _named(data: pd.DataFrame) -> pd.Series:
    """Return which sparsities are written beside their points: those that cannot be read off the axis."""
    return data["sparsity"].map(lambda word: is_pattern(word) or is_count(word)).astype(bool)


def draw_curves(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each kind of task, a column for each model."""
    data = data.assign(line=[Variant(*row).line for row in data[VARIANT].itertuples(index=False)])
    pruners = dict(zip(data["line"], data["pruner"], strict=True))
    lines = sorted(set(pruners) - {DENSE}, key=lambda name: (precedence(pruners[name]), name))
    colours, markers = style.line_looks({name: pruners[name] for name in lines})
    handles = [canvas.line_handle(name, colours[name], marker=markers[name]) for name in lines]
    if (data["pruner"] == DENSE).any():
        handles.append(canvas.line_handle(DENSE, style.INK, "", "*"))
    kinds = [kind for kind in KINDS if (data["kind"] == kind).any()]
    if guessed := chances(data):
        handles.append(canvas.line_handle(chance_name(guessed), style.GREY, CHANCE_LINE))
    handles.append(canvas.error_handle(error_name(data)))
    if (data["series"] != MEAN).any():
        handles.append(canvas.line_handle("single task", style.GREY))
        handles[-1].set(linewidth=style.THIN, alpha=2 * style.FAINT_ALPHA)
    models = list(dict.fromkeys(data["model"]))
    sheet, axes = canvas.page(len(kinds), len(models), title=title, caption=caption, handles=handles)
    for model, column in zip(models, axes.T, strict=True):
        own = data[data["model"] == model]
        for kind, ax in zip(kinds, column, strict=True):
            rows = own[own["kind"] == kind]
            if rows.empty:
                canvas.empty_panel(ax, f"{model}: no {KINDS[kind].lower()}")
                continue
            for name in lines:
                _line(ax, rows, name, colours[name], markers[name], crowded=len(lines) > FEW)
            _dense(ax, rows)
            if chance := chances(rows).get(kind):
                ax.axhline(chance, color=style.GREY, linestyle=CHANCE_LINE, linewidth=1, zorder=1)
            room = style.width() / len(models) - 0.6
            canvas.panel_title(ax, "\n".join(wrap(f"{model}: {KINDS[kind].lower()}", style.TEXT_SIZE, room)))
            ax.set_ylim(0, axis_top(rows))
        most = max(1.0, own["achieved_percent"].max())
        column[-1].set_xlim(-0.02 * most, 1.1 * most)
    wide = "decoder-block parameters removed or zeroed (%)"
    canvas.outer_labels(axes, wide if len(models) == 1 else "parameters removed or zeroed (%)", "score (%)")
    canvas.settle(sheet)  # labels are placed where the panels are
    for model, column in zip(models, axes.T, strict=True):
        for kind, ax in zip(kinds, column, strict=True):
            means = data[(data["model"] == model) & (data["kind"] == kind) & (data["series"] == MEAN)]
            _label(ax, means, colours)
    return sheet


def _dense(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the dense model below the pruned ones, some of which take nothing away and score the same."""
    dense = rows[(rows["pruner"] == DENSE) & (rows["series"] == MEAN)]
    ax.errorbar(
        dense["achieved_percent"], dense["score_percent"], yerr=dense["stderr_percent"], fmt="*",
        color=style.INK, markersize=10, elinewidth=1, capsize=2, zorder=3,
    )  # fmt: skip


def _label(ax: Axes, means: pd.DataFrame, colours: dict[str, str]) -> None:
    """Write N:M patterns and numbers of units beside their points; fractions can be read off the axis."""
    named = _named(means)
    labels = [
        PointLabel(point.achieved_percent, point.score_percent, point.sparsity, colours[point.line])
        for point in means[named].itertuples()
    ]
    others = means.loc[~named, ["achieved_percent", "score_percent"]]
    place_labels(ax, labels, list(others.itertuples(index=False, name=None)))


def _line(ax: Axes, rows: pd.DataFrame, name: str, colour: str, marker: str, *, crowded: bool) -> None:
    """Draw the tasks and the mean of one pruner with its options; with thin lines where they are crowded.

    Each N:M pattern is a separate point, joined to dense by a dotted line.
    """
    for series, line in rows[rows["line"].isin([name, DENSE])].groupby("series", sort=False):
        own = line[line["line"] == name]
        patterns = own["sparsity"].map(is_pattern).astype(bool)
        dense = line[line["pruner"] == DENSE]
        mean = series == MEAN
        width, alpha = (style.LINE, 1.0) if mean and not crowded else (style.THIN, style.FAINT_ALPHA)
        strands = [(pd.concat([dense, own[~patterns]]), "-")]
        strands += [(pd.concat([dense, own.loc[[index]]]), ":") for index in own.index[patterns]]
        for strand, dash in strands:
            x, y = strand["achieved_percent"], strand["score_percent"]
            thickness = width if dash == "-" else 0.6 * width
            ax.plot(x, y, color=colour, alpha=alpha, linewidth=thickness, linestyle=dash)
        if not mean:
            ax.plot(own["achieved_percent"], own["score_percent"], ".", color=colour, alpha=alpha, markersize=3)
            continue
        ax.errorbar(
            own["achieved_percent"], own["score_percent"], yerr=own["stderr_percent"], fmt=marker,
            color=colour, markersize=4.5, elinewidth=0.6 if crowded else 1, capsize=0 if crowded else 2, zorder=4,
            markeredgecolor="white", markeredgewidth=0.4,
        )  # fmt: skip
