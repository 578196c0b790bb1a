"""Score against achieved sparsity: the generative mean over the multiple-choice mean, a line per pruner."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patheffects import withStroke

from pipeline.figures import canvas, style
from pipeline.figures.base import Figure, MissingData, Selection
from pipeline.figures.tables import Tables
from pipeline.figures.variants import DENSE, is_count, is_pattern, magnitude, precedence

KINDS = {"generative": "Generative tasks", "multiple_choice": "Multiple-choice tasks"}
CHANCE = 25.0  # percent: one option of four
MEAN = "mean"  # the series that is the mean over tasks; the others are called after their task
# Where a task reports several metrics, its score is the first of these (else the first by name).
METRICS = ("exact_match", "pass@1", "pass_at_1", "acc", "f1")
HALO = withStroke(linewidth=2, foreground="white")
POINT = ["kind", "pruner", "sparsity"]


def select(tables: Tables) -> Selection:
    """Task scores and their mean for each kind of task, pruner and sparsity, in percent."""
    scores = tables.scores
    if scores.empty:
        raise MissingData("the scores table has no rows for these settings")
    scores = _one_metric(scores[scores["kind"].isin(KINDS) & np.isfinite(scores["value"])])
    if scores.empty:
        raise MissingData("the scores table has neither generative nor multiple-choice scores for these settings")
    if (scores["pruner"] == DENSE).all():
        raise MissingData("only the dense model has scores for these settings")
    scores, dropped = _shared_tasks(scores)
    data = pd.concat([scores.rename(columns={"task": "series"}), _means(scores)], ignore_index=True)
    data = data.assign(
        achieved_percent=100 * data["achieved"],
        score_percent=100 * data["value"],
        stderr_percent=100 * data["stderr"],
    )
    data = data.assign(is_task=data["series"] != MEAN, size=data["sparsity"].map(magnitude))
    data = data.sort_values(["kind", "is_task", "series", "pruner", "achieved_percent", "size", "sparsity"])
    columns = [*POINT, "series", "achieved_percent", "score_percent", "stderr_percent"]
    return Selection("Task scores against sparsity", data[columns], _notes(scores, data, dropped))


def _one_metric(scores: pd.DataFrame) -> pd.DataFrame:
    """One row for each task and point: the preferred metric's."""
    order = {name: place for place, name in enumerate(METRICS)}
    base = scores["metric"].astype(str).str.split(",").str[0]
    ranked = scores.assign(rank=base.map(order).fillna(len(order))).sort_values(["rank", "metric"], kind="stable")
    return ranked.drop_duplicates([*POINT, "task"])


def _shared_tasks(scores: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of tasks which every point of their kind has: means over different tasks do not compare."""
    points = scores.groupby("kind")[["pruner", "sparsity"]].apply(lambda rows: len(rows.drop_duplicates()))
    counts = scores.groupby(["kind", "task"]).size()
    shared = [key for key, count in counts.items() if count == points[key[0]]]
    missing_kinds = set(points.index) - {kind for kind, _ in shared}
    if missing_kinds:
        names = " or ".join(sorted(missing_kinds))
        raise MissingData(f"no {names} task has a score at every sparsity, so there is no mean to compare")
    keep = pd.MultiIndex.from_frame(scores[["kind", "task"]]).isin(shared)
    return scores[keep], sorted(set(scores.loc[~keep, "task"]))


def _means(scores: pd.DataFrame) -> pd.DataFrame:
    """Unweighted mean over tasks, with the standard error of a mean of independent scores.

    The error is missing where one of the scores lacks it.
    """
    groups = scores.assign(variance=scores["stderr"].astype(float) ** 2).groupby(POINT)
    means = groups.agg(achieved=("achieved", "first"), value=("value", "mean"))
    means["stderr"] = np.sqrt(groups["variance"].agg(lambda column: column.sum(skipna=False))) / groups.size()
    return means.reset_index().assign(series=MEAN)


def _notes(scores: pd.DataFrame, data: pd.DataFrame, dropped: list[str]) -> tuple[str, ...]:
    notes = ["Thick: mean over tasks, bars: its standard error; faint: single tasks."]
    if data["sparsity"].map(is_pattern).any():
        notes.append("Dotted: from dense to an N:M pattern.")
    for kind, name in KINDS.items():
        tasks = sorted(set(scores.loc[scores["kind"] == kind, "task"]))
        notes.append(f"{name}: {', '.join(tasks)}." if tasks else f"{name}: not evaluated.")
    if dropped:
        notes.append(f"Not in the means, as some points lack them: {', '.join(dropped)}.")
    return tuple(notes + _kept(data))


def _kept(data: pd.DataFrame) -> list[str]:
    """What each pruner keeps of the dense means at the highest sparsity it reaches."""
    means = data[data["series"] == MEAN].set_index("kind")
    dense = means.loc[means["pruner"] == DENSE, "score_percent"]
    if set(KINDS) - set(dense.index) or (dense <= 0).any():
        return []
    parts = []
    for pruner, rows in means[means["pruner"] != DENSE].groupby("pruner"):
        top = rows[rows["achieved_percent"] == rows["achieved_percent"].max()].groupby(level=0)["score_percent"].last()
        if set(KINDS) <= set(top.index):
            shares = [f"{100 * top[kind] / dense[kind]:.0f}%" for kind in KINDS]
            parts.append(f"{pruner} {' / '.join(shares)}")
    return [f"Kept of the dense mean at the highest sparsity, generative / multiple choice: {', '.join(parts)}."]


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """A panel for each kind of task."""
    pruners = sorted(set(data["pruner"]) - {DENSE}, key=precedence)
    colours, markers = style.pruner_colours(pruners), style.pruner_markers(pruners)
    handles = [canvas.line_handle(name, colours[name], marker=markers[name]) for name in pruners]
    if (data["pruner"] == DENSE).any():
        handles.append(canvas.line_handle(DENSE, style.INK, "", "*"))
    kinds = [kind for kind in KINDS if (data["kind"] == kind).any()]
    if "multiple_choice" in kinds:
        handles.append(canvas.line_handle(f"chance ({CHANCE:g}%)", style.GREY, (0, (4, 2))))
    sheet, axes = canvas.page(len(kinds), 1, title=title, caption=caption, handles=handles, legend_columns=6)
    for kind, ax in zip(kinds, axes[:, 0], strict=True):
        rows = data[data["kind"] == kind]
        for pruner in pruners:
            _pruner(ax, rows, pruner, colours[pruner], markers[pruner])
        dense = rows[(rows["pruner"] == DENSE) & (rows["series"] == MEAN)]
        ax.errorbar(
            dense["achieved_percent"], dense["score_percent"], yerr=dense["stderr_percent"], fmt="*",
            color=style.INK, markersize=8, elinewidth=1, capsize=2, zorder=5,
        )  # fmt: skip
        if kind == "multiple_choice":
            ax.axhline(CHANCE, color=style.GREY, linestyle=(0, (4, 2)), linewidth=1, zorder=1)
        canvas.panel_title(ax, KINDS[kind])
        ax.set_ylabel("score (%)")
        ax.set_ylim(0, max(1.0, 1.12 * (rows["score_percent"] + rows["stderr_percent"].fillna(0)).max()))
    axes[-1, 0].set_xlim(-0.02 * data["achieved_percent"].max(), max(1.0, 1.06 * data["achieved_percent"].max()))
    axes[-1, 0].set_xlabel("share of decoder-block parameters removed or zeroed (%)")
    return sheet


def _pruner(ax: Axes, rows: pd.DataFrame, pruner: str, colour: str, marker: str) -> None:
    """One pruner's tasks and mean. N:M patterns are points of their own, tied to dense by a dotted line."""
    for series, line in rows[rows["pruner"].isin([pruner, DENSE])].groupby("series", sort=False):
        own = line[line["pruner"] == pruner]
        patterns = own["sparsity"].map(is_pattern)
        dense = line[line["pruner"] == DENSE]
        mean = series == MEAN
        width, alpha = (style.LINE, 1.0) if mean else (style.THIN, style.FAINT_ALPHA)
        strands = [(pd.concat([dense, own[~patterns]]), "-")]
        strands += [(pd.concat([dense, own.loc[[index]]]), ":") for index in own.index[patterns]]
        for strand, dash in strands:
            x, y = strand["achieved_percent"], strand["score_percent"]
            ax.plot(
                x,
                y,
                color=colour,
                alpha=alpha,
                linewidth=width if dash == "-" else 0.6 * width,
                linestyle=dash,
            )
        if not mean:
            ax.plot(own["achieved_percent"], own["score_percent"], ".", color=colour, alpha=alpha, markersize=3)
            continue
        ax.errorbar(
            own["achieved_percent"], own["score_percent"], yerr=own["stderr_percent"], fmt=marker,
            color=colour, markersize=4.5, elinewidth=1, capsize=2, zorder=4,
        )  # fmt: skip
        for point in own[patterns | own["sparsity"].map(is_count)].itertuples():
            ax.annotate(
                point.sparsity, (point.achieved_percent, point.score_percent), xytext=(4, 4),
                textcoords="offset points", size=style.SMALL_SIZE, color=colour, path_effects=[HALO],
            )  # fmt: skip


FIGURE = Figure(select, draw)
