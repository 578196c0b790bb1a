"""Options protocol: top tokens of the dense model and option tokens of an item that it gets right, against pruned."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from pipeline.plot import canvas, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.token_labels import visible
from pipeline.plot.variant_notes import left_out_note
from pipeline.tables.read import WEIGHT, Tables
from pipeline.tables.replicates import first_replicates
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, rows_of, select_preferred, variants_of

ROWS = 3
TOP, OPTION, PROBE = "top", "option", "probe"
SHARES = (1.75, 1.0)  # widths of the left and the right column
GOLD = "#f3e3a1"
BAR = 0.38
COLUMNS = [*VARIANT, "prompt", "role", "place", "text", "gold", "logp_dense", "logp_pruned"]


def select(tables: Tables) -> Selection:
    """Select log-likelihoods of the top ten tokens and the options of one prompt, for a few variants.

    The prompt is the first probe that the dense model answers correctly, or else the first of all such prompts.
    """
    rows = first_replicates(tables.option_tokens)
    if rows.empty:
        raise MissingData("the option_tokens table has no rows for these settings")
    rows = rows[np.isfinite(rows[["logp_dense", "logp_pruned"]].astype(float)).all(axis=1)]
    origin, prompt, said = _item(rows)
    rows = rows[(rows["prompt"] == prompt) & (rows["origin"] == origin)]
    everyone = variants_of(rows)
    droppers = [variant for variant in everyone if tables.unit(variant.pruner) != WEIGHT]
    others = [variant for variant in everyone if variant not in droppers]
    shown, _ = select_preferred(droppers, ("8",), ROWS)
    shown += select_preferred(others, ("4:8",), ROWS - len(shown))[0]
    data = rows_of(rows, shown)[COLUMNS].assign(text=lambda part: part["text"].map(visible))
    data = data.assign(gold=data["gold"].astype(int)).sort_values([*VARIANT, "role", "place"], kind="stable")
    notes = (
        f"First decision step of one multiple-choice item, {said}; probabilities over the whole vocabulary at"
        " temperature 1.",
        "Left: the dense model's ten most likely tokens (\u2423 is a space); bold: option tokens.",
        "Right: log-likelihood of the option tokens; the highest of each model is filled.",
        *left_out_note([variant for variant in everyone if variant not in shown]),
    )
    return Selection("Most likely tokens and options at the first decision step", data, notes)


def _item(rows: pd.DataFrame) -> tuple[str, str, str]:
    """Return origin and name of the prompt to show, and what to say about it.

    Raises:
        MissingData: if no prompt has both options and top tokens.
    """
    prompts = rows.groupby(["origin", "prompt"], sort=False)["role"].nunique()
    whole = sorted(prompts[prompts == 2].index, key=lambda item: item[0] != PROBE)  # stable: probes first
    if not whole:
        raise MissingData("the option_tokens table has no prompt with both options and top tokens")
    options = rows[rows["role"] == OPTION].reset_index(drop=True)
    best = options.loc[options.groupby(["origin", "prompt"], sort=False)["logp_dense"].idxmax()]
    right = set(best.loc[best["gold"].astype(bool), ["origin", "prompt"]].itertuples(index=False, name=None))
    origin, prompt = next((item for item in whole if item in right), whole[0])
    if (origin, prompt) not in right:
        return origin, prompt, f"{prompt} (the dense model answers none of the {len(whole)} items correctly)"
    if origin == PROBE:
        return origin, prompt, f"{prompt}, the first probe prompt that the dense model answers correctly"
    none = "answers no probe prompt correctly; this is its" if whole[0][0] == PROBE else "answers; this is its"
    return origin, prompt, f"{prompt} (the dense model {none} first right answer)"


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each variant: probabilities of the top tokens on the left, the options on the right."""
    variants = variants_of(data)
    colours = style.pruner_colours(variant.pruner for variant in variants)
    handles = [Patch(color=style.INK, linewidth=0, label="dense")]
    names = dict.fromkeys(variant.pruner for variant in variants)
    handles += [Patch(color=colours[name], linewidth=0, label=name) for name in names]
    handles += [Patch(color=GOLD, linewidth=0, label="correct option")] if data["gold"].any() else []
    sheet, axes = canvas.page(
        len(variants),
        2,
        title=title,
        caption=caption,
        handles=handles,
        width_ratios=SHARES,
    )
    for row, variant in zip(axes, variants, strict=True):
        own = rows_of(data, [variant])
        _top_tokens(row[0], own, colours[variant.pruner])
        _options(row[1], own[own["role"] == OPTION], colours[variant.pruner])
        canvas.panel_title(row[0], f"{variant.label}: the dense model's top tokens")
        canvas.panel_title(row[1], "options")
    _limits(axes, data)
    return sheet


def _top_tokens(ax: Axes, own: pd.DataFrame, colour: str) -> None:
    rows, options = own[own["role"] == TOP], set(own.loc[own["role"] == OPTION, "text"])
    x = np.arange(len(rows))
    ax.bar(x - BAR / 2, np.exp(rows["logp_dense"]), BAR, color=style.INK, linewidth=0)
    ax.bar(x + BAR / 2, np.exp(rows["logp_pruned"]), BAR, color=colour, linewidth=0)
    ax.axhline(0, color=style.GREY, linewidth=style.THIN)
    ax.grid(False, axis="x")
    ax.set_ylabel("probability")
    _token_ticks(ax, rows["text"], rows["text"].isin(options))


def _options(ax: Axes, rows: pd.DataFrame, colour: str) -> None:
    x = np.arange(len(rows))
    for place in x[rows["gold"].to_numpy() == 1]:
        ax.axvspan(place - 0.42, place + 0.42, color=GOLD, linewidth=0, zorder=0)
    ax.vlines(x, rows["logp_dense"], rows["logp_pruned"], color=style.GREY, linewidth=1, zorder=1)
    for column, shade in (("logp_dense", style.INK), ("logp_pruned", colour)):
        ax.plot(x, rows[column], "o", color=shade, markerfacecolor="white", markersize=5)
        best = int(rows[column].to_numpy().argmax())
        ax.plot(x[best], rows[column].iloc[best], "o", color=shade, markersize=5)
    ax.grid(False, axis="x")
    ax.set_ylabel("log-likelihood (nats)")
    _token_ticks(ax, rows["text"], rows["gold"] == 1)


def _token_ticks(ax: Axes, texts: pd.Series, bold: pd.Series) -> None:
    long = texts.str.len().max() > 4 and len(texts) > 5
    ax.set_xticks(range(len(texts)), texts, parse_math=False)
    ax.set_xlim(-0.6, len(texts) - 0.4)
    for tick, strong in zip(ax.xaxis.get_major_ticks(), bold, strict=True):
        label = tick.label1
        label.set_fontweight("bold" if strong else "normal")
        if long:
            label.set(rotation=30, ha="right", rotation_mode="anchor")


def _limits(axes: np.ndarray, data: pd.DataFrame) -> None:
    """Set the same limits in every row of a column, to make rows comparable."""
    values = data.loc[data["role"] == OPTION, ["logp_dense", "logp_pruned"]].to_numpy()
    air = max(0.12 * (values.max() - values.min()), 0.1)
    top = np.exp(data.loc[data["role"] == TOP, ["logp_dense", "logp_pruned"]].to_numpy()).max()
    for probabilities, likelihoods in axes:
        probabilities.set_ylim(0, 1.06 * top)
        likelihoods.set_ylim(values.min() - air, values.max() + air)


FIGURE = Figure(select, draw, version=4)
