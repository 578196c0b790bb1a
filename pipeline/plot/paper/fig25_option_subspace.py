"""Options protocol: deviation of option tokens against that of the vocabulary and of random tokens of equal rank."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.analysis.bootstrap import interval
from pipeline.analysis.final_states import leave_out_unchanged
from pipeline.plot import canvas, scales, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.variant_notes import left_out_note
from pipeline.plot.wrapping import wrap
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, rows_of, select_preferred, variants_of

LINES = 6
# Set -> (name, marker).
SETS = {
    "vocabulary": ("vocabulary", "s"),
    "control": ("random tokens of equal rank", "D"),
    "options": ("option tokens", "o"),
}
PANELS = {
    "KL": r"$\mathrm{KL}(p\,\|\,q)$ inside the set (nats)",
    "1 - cos p": r"$1-\cos(p, q)$ inside the set",
    "flip": "argmax flips (%)",
    "mass": "probability mass retained (%)",
    "rank": "change of rank",
    "margin": r"change of margin (logits$\,/\,T$)",
}
LOGARITHMIC = ("KL", "1 - cos p", "mass", "rank")
NAME = 1.5  # inches: the most that the name of a variant takes beside its row
UNCHANGED = {"mass": 100.0}  # the value of a quantity in the unchanged model, where it is not zero
KEYS = [*VARIANT, "set", "quantity"]
STATISTICS = ["mean", "low", "high"]


def select(tables: Tables) -> Selection:
    """Select mean and bootstrap interval over prompts per variant, token set and quantity."""
    if tables.options.empty:
        raise MissingData("the options table has no rows for these settings")
    rows, temperature = series.at_temperature(tables.options)
    rows = rows[rows["set"].isin(SETS)]
    rows, identical_note = leave_out_unchanged(rows)
    shown, left_out = select_preferred(variants_of(rows), ("8", "4:8"), LINES)
    data = _summary(_per_prompt(rows_of(rows, shown)))
    if data.empty:
        raise MissingData("the options table has no finite values for these settings")
    absent = [name for key, (name, _) in SETS.items() if not (data["set"] == key).any()]
    notes = (
        "First decision step of multiple-choice prompts; KL and cosine of probabilities renormalized inside each set.",
        "Random tokens: as many as there are options, of similar rank in the dense model; mean over draws, then over"
        " prompts.",
        "Mass retained: pruned over dense; ranks and margins: pruned minus dense.",
        f"Means over {_count(data)} prompts; bars: 95% bootstrap interval over prompts. Temperature {temperature:g}.",
        *((f"Not measured: {', '.join(absent)}.",) if absent else ()),
        *identical_note,
        *left_out_note(left_out),
    )
    return Selection("Option tokens against the vocabulary and random tokens", data, notes)


def _count(data: pd.DataFrame) -> str:
    least, most = int(data["n"].min()), int(data["n"].max())
    return f"{most}" if least == most else f"{least} to {most}"


def _per_prompt(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute one value per variant, set, quantity and prompt: the mean over the draws of random tokens."""
    values = {
        "KL": rows["kl"].clip(lower=0.0),
        "1 - cos p": series.deviation(rows["cos_p"]),
        "flip": 100.0 * rows["flip"],
        "mass": 100.0 * rows["mass_pruned"] / rows["mass_dense"],
        "rank": rows["rank_pruned"] - rows["rank_dense"],
        "margin": rows["margin_pruned"] - rows["margin_dense"],
    }
    # Prompts of different origin may share a name.
    names = rows["origin"].astype(str) + " " + rows["prompt"].astype(str)
    parts = []
    for quantity, column in values.items():
        finite = column.astype(float).replace([np.inf, -np.inf], np.nan).dropna()
        groups = finite.groupby(
            [rows.loc[finite.index, name] for name in (*VARIANT, "set")] + [names[finite.index].rename("of")]
        )
        parts.append(groups.mean().rename("value").reset_index().assign(quantity=quantity))
    return pd.concat(parts, ignore_index=True)


def _summary(prompts: pd.DataFrame) -> pd.DataFrame:
    """Compute mean and bootstrap interval over prompts: columns `KEYS`, mean, low, high, n (prompts)."""
    rows = []
    for key, part in prompts.groupby(KEYS, sort=True):
        low, high = interval(part["value"], part["of"])
        rows.append((*key, part["value"].mean(), low, high, len(part)))
    return pd.DataFrame(rows, columns=[*KEYS, *STATISTICS, "n"])


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a panel for each quantity, with a row for each variant and a point for each set."""
    variants = variants_of(data)
    present = [key for key in SETS if (data["set"] == key).any()]
    handles = [canvas.line_handle(SETS[key][0], style.SET_COLOURS[key], marker=SETS[key][1]) for key in present]
    handles += [canvas.error_handle("mean over prompts, 95% interval", upright=False)]
    sheet, axes = canvas.page(
        2,
        3,
        title=title,
        caption=caption,
        handles=handles,
        sharey="row",
        sharex="none",
    )
    for ax, (quantity, name) in zip(axes.flat, PANELS.items(), strict=True):
        part = data[data["quantity"] == quantity]
        if part.empty:
            canvas.empty_panel(ax, f"no finite {quantity}")
            continue
        _limits(ax, quantity, part)
        for place, variant in enumerate(variants):
            own = rows_of(part, [variant]).set_index("set")
            for turn, key in enumerate(name for name in present if name in own.index):
                _point(ax, own.loc[key], place + 0.24 * (turn - (len(present) - 1) / 2), key)
        ax.axvline(UNCHANGED.get(quantity, 0.0), color=style.INK, linewidth=style.THIN, zorder=1)
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(name)
    for ax in axes[:, 0]:
        names = ["\n".join(wrap(variant.label, style.SMALL_SIZE, NAME)) for variant in variants]
        ax.set_yticks(range(len(variants)), names, parse_math=False)
        ax.set_ylim(len(variants) - 0.45, -0.55)
    return sheet


def _point(ax: Axes, row: pd.Series, y: float, key: str) -> None:
    colour, marker = style.SET_COLOURS[key], SETS[key][1]
    ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1)
    ax.plot([row["mean"]], [y], marker, color=colour, markersize=3.5)


def _limits(ax: Axes, quantity: str, part: pd.DataFrame) -> None:
    values = part[STATISTICS].to_numpy().ravel()
    if quantity in LOGARITHMIC:
        scales.signed_axis(ax, "x", values, ticks=3)
        return
    finite = np.append(values[np.isfinite(values)], UNCHANGED.get(quantity, 0.0))
    air = 0.06 * float(np.ptp(finite)) or 0.5
    low, high = finite.min() - air, finite.max() + air
    ax.set_xlim(low, high)
    # A tick beyond the limits would still have a label, which would overlap that of the next panel.
    ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])


FIGURE = Figure(select, draw, version=2)
