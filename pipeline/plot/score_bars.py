"""Bars of mean scores, a group per model: dense, and a fraction of the weights, 4:8 and 2:4 under one pruner.

If that pruner was not run, the bars may show other variants instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.analysis.score_means import (
    CHANCE,
    MEAN,
    PERCENT,
    READINGS,
    SAME_SETTINGS,
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
from pipeline.plot.base import Figure, Selection
from pipeline.plot.score_errors import SEEDS, error_name, with_seeds
from pipeline.plot.variant_notes import left_out_note
from pipeline.plot.wrapping import wrap
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import (
    DENSE,
    VARIANT,
    Variant,
    is_count,
    is_pattern,
    magnitude,
    precedence,
    rows_of,
    spread,
    variants_of,
)

PATTERNS = ("4:8", "2:4")
HALF = 0.5  # the fraction that the N:M patterns of the figure remove, too
MODELS = 5
ABREAST = 2  # the most models with room for panels side by side
WIDTH = 0.8  # of a bar, where the next one is 1 away
CHANCE_LINE = (0, (4, 2))
TINTS = (0.45, 1.0)  # of the pruner's colour: from its first bar to its last
MARKS: dict[str, Any] = {
    "markersize": 2.6,
    "markerfacecolor": "white",
    "markeredgecolor": style.INK,
    "markeredgewidth": 0.5,
}
VARIANTS = 9  # bars of a model beside the dense one


def bars_of(pruner: str, *, else_any: bool = False) -> Figure:
    """Return the figure of one pruner; with ``else_any``, of the variants that were run if that pruner was not."""
    return Figure(_selecting(pruner, else_any), draw_bars, version=2)


def _selecting(pruner: str, else_any: bool) -> Callable[[Tables], Selection]:
    def select(tables: Tables) -> Selection:
        """Select task scores and their mean for each kind of task, model and bar, in percent."""
        if else_any and not tables.scores.empty and not (tables.scores["pruner"] == pruner).any():
            return _variants(tables, pruner)
        models = {tables.model(): tables, **{name: tables.peers[name] for name in sorted(tables.peers)}}
        parts = {name: own for name, each in models.items() if not (own := _weights_only(each, pruner)).empty}
        fraction = _fraction(list(parts.values()))
        wanted = [*([fraction] if fraction else []), *PATTERNS]
        bars = {name: part[(part["pruner"] == DENSE) | part["sparsity"].isin(wanted)] for name, part in parts.items()}
        bars = {name: part for name, part in bars.items() if (part["pruner"] != DENSE).any()}
        if tables.model() not in bars:
            raise MissingData(f"no fraction and neither 4:8 nor 2:4 was evaluated with {pruner} under these settings")
        shown, left_out = list(bars)[:MODELS], list(bars)[MODELS:]
        rows = pd.concat([bars[name] for name in shown], ignore_index=True)
        shared, dropped = shared_tasks(rows)
        if shared.empty:
            raise MissingData(f"no task has a score for dense and every pattern of {pruner}")
        data = _comparable(_sorted(with_seeds(with_means(shared), shared), shown))
        notes = _notes(
            data, pruner, fraction, [*task_notes(shared, dropped), *other_scales(tables, READINGS)], left_out
        )
        return Selection(f"Scores by sparsity pattern: {pruner}", data, notes)

    return select


def _variants(tables: Tables, pruner: str) -> Selection:
    """Select dense and the variants that were run, for this model alone."""
    scores = task_scores(tables, READINGS)
    everyone = [variant for variant in variants_of(scores) if variant.pruner != DENSE and magnitude(variant.sparsity)]
    if not everyone:
        raise MissingData(f"no pruned model was evaluated under these settings, with {pruner} or any other pruner")
    shown, left_out = spread(everyone, VARIANTS)
    rows = pd.concat([scores[scores["pruner"] == DENSE], rows_of(scores, shown)], ignore_index=True)
    shared, dropped = shared_tasks(rows)
    if shared.empty:
        raise MissingData("no task has a score for dense and every pruned model")
    data = _comparable(_sorted(with_seeds(with_means(shared), shared), [tables.model()]))
    notes = [f"{pruner} was not run; the pruned models shown are those that were.", _bars(data)]
    notes += task_notes(shared, dropped)
    notes += other_scales(tables, READINGS)
    return Selection("Scores of dense and pruned models", data, (*notes, *left_out_note(left_out)))


def _comparable(data: pd.DataFrame) -> pd.DataFrame:
    """Return the data unchanged. Raises MissingData if they leave nothing to compare."""
    kinds = [kind for kind in READINGS if (data["kind"] == kind).any()]
    if len(kinds) < len(READINGS):
        raise MissingData(
            f"only {READINGS[kinds[0]].lower()} have scores, and the figure compares them with the others"
        )
    if data["label"].nunique() < 2:
        raise MissingData(f"only {data['label'].iloc[0]} has scores, and one bar leaves nothing to compare")
    return data


def _weights_only(tables: Tables, pruner: str) -> pd.DataFrame:
    """Return the scores of the dense model and of one pruner; empty if the pruner has none."""
    if tables.scores.empty or not (tables.scores["pruner"] == pruner).any():
        return pd.DataFrame()
    scores = task_scores(tables, READINGS)
    return scores[scores["pruner"].isin([DENSE, pruner])]


def _fraction(parts: Sequence[pd.DataFrame]) -> str | None:
    """Choose the fraction for the bars of all models: of the first model that has any, the nearest to a half."""
    for part in parts:
        words = set(part.loc[part["pruner"] != DENSE, "sparsity"])
        fractions = [word for word in words if not is_pattern(word) and not is_count(word) and magnitude(word) > 0]
        if fractions:
            return min(fractions, key=lambda word: (abs(magnitude(word) - HALF), magnitude(word)))
    return None


def _sorted(data: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Sort rows by kind, model, bar and task, the mean last."""
    several = data.loc[data["pruner"] != DENSE, "pruner"].nunique() > 1 or data["sparsity"].map(is_count).any()
    labels = [
        DENSE if variant.pruner == DENSE else variant.label if several else variant.short
        for variant in map(Variant._make, data[VARIANT].itertuples(index=False))
    ]
    data = data.assign(label=labels)
    keys = data.assign(
        kind=data["kind"].map(list(READINGS).index),
        model=data["model"].map(list(models).index),
        label=data["label"].map(_labels(data).index),
        last=data["series"] == MEAN,
    ).sort_values(["kind", "model", "label", "last", "series"], kind="stable")
    return data.loc[keys.index, ["kind", "model", *VARIANT, "label", "series", *PERCENT, SEEDS, CHANCE]]


def _bars(data: pd.DataFrame) -> str:
    return f"Bars: mean over tasks, with the number below; error bars: its {error_name(data)}; dots: single tasks."


def _labels(data: pd.DataFrame) -> list[str]:
    """Order the bars: dense, then by pruner and rising sparsity, a fraction before patterns of the same sparsity."""

    def place(row: tuple[str, str, str, str]) -> tuple:
        _, pruner, sparsity, options = row
        pattern = PATTERNS.index(sparsity) if sparsity in PATTERNS else -1
        return pruner != DENSE, precedence(pruner), magnitude(sparsity), pattern, sparsity, options

    rows = data[["label", *VARIANT]].drop_duplicates().itertuples(index=False, name=None)
    return list(dict.fromkeys(label for label, *_ in sorted(rows, key=place)))


def _notes(
    data: pd.DataFrame, pruner: str, fraction: str | None, tasks: list[str], left_out: Sequence[str]
) -> tuple[str, ...]:
    notes = [_bars(data)]
    absent = [name for name in PATTERNS if not (data["sparsity"] == name).any()]
    if fraction is None:
        absent.insert(0, "unstructured")
    if absent:
        notes.append(f"Not evaluated with {pruner}: {', '.join(absent)}.")
    if not (data["label"] == DENSE).any():
        notes.append("The dense model was not evaluated.")
    notes += tasks
    if data["model"].nunique() > 1:
        notes.append(SAME_SETTINGS)
    if left_out:
        notes.append(f"Left out for space: {', '.join(left_out)}.")
    return tuple(notes)


def draw_bars(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a panel for each kind of task, a group of bars for each model."""
    labels = _labels(data)
    colours = _colours(data, labels)
    handles: list = [Patch(color=colours[label], label=_name(label)) for label in labels]
    kinds = [kind for kind in READINGS if (data["kind"] == kind).any()]
    guessed = chances(data)
    if guessed:
        handles.append(canvas.line_handle(chance_name(guessed), style.INK, CHANCE_LINE))
    handles += [canvas.error_handle(error_name(data)), _dot()]
    models = list(dict.fromkeys(data["model"]))
    abreast = len(models) <= ABREAST
    sheet, axes = canvas.page(
        1 if abreast else len(kinds),
        len(kinds) if abreast else 1,
        title=title,
        caption=caption,
        handles=handles,
    )
    for kind, ax in zip(kinds, axes.ravel(), strict=True):
        rows = data[data["kind"] == kind]
        _panel(ax, rows, models, labels, colours, style.width() / (len(kinds) if abreast else 1))
        if kind in guessed:
            ax.axhline(guessed[kind], color=style.INK, linestyle=CHANCE_LINE, linewidth=0.8, zorder=3)
        ax.set_ylim(0, axis_top(rows))
        ax.set_ylabel("score (%)")
        canvas.panel_title(ax, READINGS[kind])
    return sheet


def _dot() -> Line2D:
    handle = canvas.line_handle("single task", style.INK, "", "o")
    handle.set(**MARKS, alpha=0.6)
    return handle


def _panel(
    ax: Axes,
    rows: pd.DataFrame,
    models: Sequence[str],
    labels: Sequence[str],
    colours: dict[str, str],
    width: float,
) -> None:
    """Draw the bars of one kind of task in a panel that takes `width` inches with its labels."""
    stride = len(labels) + 0.8  # from one model's first bar to the next one's
    room = 0.75 * width / len(models)
    for group, model in enumerate(models):
        for slot, label in enumerate(labels):
            x = group * stride + slot
            bar = rows[(rows["model"] == model) & (rows["label"] == label)]
            _below(ax, x, _bar(ax, bar, x, colours[label]) if not bar.empty else "n/a", 4, style.SMALL_SIZE)
        name = "\n".join(wrap(model, style.TEXT_SIZE, room))
        _below(ax, group * stride + (len(labels) - 1) / 2, name, 15, style.TEXT_SIZE)
    ax.set_xticks([])
    ax.set_xlim(-0.8, (len(models) - 1) * stride + len(labels) - 0.2)


def _below(ax: Axes, x: float, text: str, down: float, size: float) -> None:
    """Write text below the axis; tick labels would not do, as panels above each other share them."""
    ax.annotate(
        text, (x, 0), xytext=(0, -down), textcoords="offset points", xycoords=("data", "axes fraction"),
        ha="center", va="top", size=size, annotation_clip=False,
    )  # fmt: skip


def _bar(ax: Axes, bar: pd.DataFrame, x: float, colour: str) -> str:
    """Draw the mean, its error and the tasks, each at the same place in every bar; return the mean as text."""
    mean = bar[bar["series"] == MEAN].iloc[0]
    tasks = bar[bar["series"] != MEAN].sort_values("series")
    ax.bar(x, mean["score_percent"], WIDTH, color=colour, linewidth=0, zorder=2)
    ax.errorbar(
        x, mean["score_percent"], yerr=mean["stderr_percent"], color=style.INK, elinewidth=1, capsize=2, zorder=4
    )
    spots = x + WIDTH * (np.arange(len(tasks)) + 0.5 - len(tasks) / 2) / max(len(tasks), 1) * 0.8
    ax.plot(spots, tasks["score_percent"], "o", **MARKS, alpha=0.6, zorder=5, clip_on=False)
    return f"{mean['score_percent']:.1f}".replace("100.0", "100")


def _name(label: str) -> str:
    word, *options = label.split(", ")
    plain = word == DENSE or " " in word or is_pattern(word)
    return ", ".join([word if plain else f"unstructured {100 * magnitude(word):g}%", *options])


def _colours(data: pd.DataFrame, labels: Sequence[str]) -> dict[str, str]:
    """Return the colour of each bar: that of its pruner, paler for earlier bars; grey for dense."""
    owner = dict(zip(data["label"], data["pruner"], strict=True))
    pruners = style.pruner_colours([name for name in dict.fromkeys(owner.values()) if name != DENSE])
    colours = {DENSE: style.GREY}
    for pruner, colour in pruners.items():
        own = [label for label in labels if owner[label] == pruner]
        for label, tint in zip(own, np.linspace(*TINTS, len(own)) if len(own) > 1 else TINTS[1:], strict=True):
            colours[label] = to_hex(tuple(1 - tint * (1 - part) for part in to_rgb(colour)))
    return colours
