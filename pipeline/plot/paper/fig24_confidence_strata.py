"""KL, its estimate and argmax flips within quintiles of the dense model's confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.typing import LineStyleType

from pipeline.analysis.final_states import leave_out_unchanged, on_dense_trajectory
from pipeline.analysis.strata import CONFIDENCES, COUNT, strata
from pipeline.plot import canvas, scales, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.variant_notes import left_out_note
from pipeline.tables.read import Tables, require
from pipeline.tables.variants import VARIANT, Variant, rows_of, select_preferred, variants_of

LINES = 4
MARKS = 30  # of tick labels that have room side by side below a panel
LEAST, DECIMALS = 2, 4  # after the point of a tick label
NAMES = {"top1": "top-1 probability", "entropy": "entropy (nats)", "margin": "logit margin / T"}
LABELS = (r"$\mathrm{KL}(p\,\|\,q)$ (nats)", "KL \u2212 estimate (nats)", "argmax flips (%)")  # of the rows


def select(tables: Tables) -> Selection:
    """Select means per variant, measure of confidence and quintile, with bootstrap intervals over prompts."""
    rows, _, said = on_dense_trajectory(tables)
    require(rows, ["kl", "est_kl", "flip", *CONFIDENCES])
    rows, identical_note = leave_out_unchanged(rows)
    shown, left_out = select_preferred(variants_of(rows), ("8", "4:8"), LINES)
    parts = [strata(rows_of(rows, [variant])).assign(**variant._asdict()) for variant in shown]
    data = pd.concat(parts, ignore_index=True)
    notes = (
        said,
        "All positions of a variant, split at the quintiles of the dense model's top-1 probability, entropy, and"
        " margin between its two largest logits; the least confident fifth is on the left; ticks"
        " mark the quintiles where all variants share them.",
        "Filled: measured means; open: the estimate of theorem 3, Var_p(dz) / 2T^2; middle row: measured minus"
        " estimate, without interval.",
        f"Means over the positions of {rows['prompt'].nunique()} prompts; bars: 95% bootstrap interval over prompts.",
        *identical_note,
        *left_out_note(left_out),
    )
    columns = [*VARIANT, *[name for name in data.columns if name not in VARIANT]]
    return Selection("Deviation by the dense model's confidence", data[columns], notes)


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a column for each measure of confidence: KL with its estimate, their difference, and flips below."""
    variants = variants_of(data)
    colours, lines = style.pruner_colours(variant.pruner for variant in variants), style.line_styles(variants)
    handles = [canvas.line_handle(variant.label, colours[variant.pruner], lines[variant], "o") for variant in variants]
    handles += [canvas.line_handle("mean over positions", style.GREY, marker="o")]
    handles += [canvas.line_handle("its estimate (theorem 3)", style.GREY, "", "o")]
    handles[-1].set_markerfacecolor("white")
    handles += [canvas.error_handle("95% interval over prompts")]
    sheet, axes = canvas.page(
        3,
        3,
        title=title,
        caption=caption,
        handles=handles,
        sharey="row",
    )
    for column, (measure, name) in zip(axes.T, NAMES.items(), strict=True):
        part = data[data["quantity"] == measure]
        for place, variant in enumerate(variants):
            own = rows_of(part, [variant])
            offset = 0.13 * (place - (len(variants) - 1) / 2)
            _variant(column, own, own["stratum"].astype(float) + offset, colours[variant.pruner], lines[variant])
        _bounds(column[-1], part, variants)
        canvas.panel_title(column[0], f"by {name}")
        column[-1].set_xlabel(name)
    _limits(axes[:, 0], data)
    for ax, label in zip(axes[:, 0], LABELS, strict=True):
        ax.set_ylabel(label)
    return sheet


def _variant(column: np.ndarray, own: pd.DataFrame, x: pd.Series, colour: str, line: LineStyleType) -> None:
    kl, remainder, flip = column
    kl.plot(x + 0.06, own["est_kl"], "o", color=colour, markerfacecolor="white", markersize=3.5, zorder=2)
    for ax, name, factor in ((kl, "kl", 1.0), (remainder, "remainder", 1.0), (flip, "flip", 100.0)):
        ax.plot(x, factor * own[name], color=colour, linestyle=line, linewidth=1.1, marker="o", markersize=3.5)
        if name != "remainder":
            ax.vlines(x, factor * own[f"{name}_low"], factor * own[f"{name}_high"], color=colour, linewidth=0.9)


def _bounds(ax: Axes, part: pd.DataFrame, variants: list[Variant]) -> None:
    """Put ticks at the bounds of the strata, or number the strata if the variants have different bounds."""
    ax.set_xlim(0.4, COUNT + 0.6)
    bounds = part.groupby("stratum")[["lower", "upper"]].agg(["min", "max"])
    same = all(np.allclose(bounds[end]["min"], bounds[end]["max"], rtol=0.02, atol=1e-6) for end in ("lower", "upper"))
    if not same or len(bounds) < COUNT or part.empty:
        ax.set_xticks(range(1, COUNT + 1), ["lowest", "2", "3", "4", "highest"])
        return
    first = rows_of(part, variants[:1]).sort_values("stratum")
    falling = first["lower"].iloc[0] > first["lower"].iloc[-1]
    start, ends = ("upper", "lower") if falling else ("lower", "upper")
    places = [0.5 + place for place in range(COUNT + 1)]
    texts = _numbers([first[start].iloc[0], *first[ends]])
    ax.set_xticks(places, texts)
    if sum(map(len, texts)) > MARKS:
        ax.tick_params(axis="x", rotation=45)


def _numbers(values: Sequence[float]) -> list[str]:
    """Write bounds with two decimals, or as many more as tell different ones apart, up to `DECIMALS`."""
    for decimals in range(LEAST, DECIMALS + 1):
        texts = [f"{value:.{decimals}f}" for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def _limits(first: np.ndarray, data: pd.DataFrame) -> None:
    """Set the axes of the three rows, each shared by the panels of its row."""
    divergences = data[["kl", "kl_low", "kl_high", "est_kl"]].clip(lower=0).to_numpy().ravel()
    scales.decade_axis(first[0], divergences, ticks=scales.most_ticks(len(first)))
    scales.signed_axis(first[1], "y", data["remainder"], ticks=3)
    first[2].set_ylim(-0.03 * (top := max(1.0, 108 * np.nanmax(data[["flip", "flip_high"]].to_numpy()))), top)


FIGURE = Figure(select, draw, version=3)
