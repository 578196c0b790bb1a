"""Demoted or erased: where the gold answers stand that pruned models no longer generate, for every variant."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from pipeline.analysis.demotion import demotion
from pipeline.evaluate.fidelity import HIGH, IN_REACH
from pipeline.plot import canvas, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.variant_notes import left_out_note
from pipeline.plot.wrapping import wrap
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, Variant, rows_of, spread, variants_of

ROWS = 36
ROW_HEIGHT = 0.2  # inches
NAME = 0.3  # of the width of the page: the most that the name of a variant takes beside its row
NAME_LINE = 0.12  # inches: the height of each line of a name
BAR = 0.62  # of the height of a row
CHANCE_LINE = (0, (4, 2))
# From the answers that are nearly generated to those that are out of reach.
RANKS = {
    "high": (f"rank 1 to {HIGH}", "#0072B2"),
    "reach": (f"{HIGH + 1} to {IN_REACH}", "#9CC9E8"),
    "beyond": (f"beyond {IN_REACH}", "#C9C9C9"),
}
SHARES = [*RANKS, "twin", "twin_low", "twin_high", "chance"]
COUNTS = ["asked", "dense_right", "lost", "ranked", "twins"]


def select(tables: Tables) -> Selection:
    """Select ranks of the gold tokens of lost answers, and the share that is right as multiple choice, in percent."""
    found = demotion(tables)
    found = found[(found["ranked"] > 0) | (found["twins"] > 0)]
    if found.empty:
        raise MissingData("no pruned model has lost a generated answer that dense has right, under these settings")
    shown, left_out = spread(variants_of(found), ROWS)
    data = rows_of(found, shown)
    percent = {f"{name}_percent": 100 * data[name].astype(float) for name in SHARES}
    guessed = data["chance"].dropna().unique()
    notes = (
        f"Of {_range(data['asked'])} items, those that dense generates rightly and the variant does not; their number "
        "is in brackets.",
        f"Left: rank of the first gold token that differs from the variant's text, in its whole vocabulary, 1 being "
        f"the likeliest. Demoted: still high; erased: beyond rank {IN_REACH}.",
        "Answers that begin with the right one have no such token, nor those that the limit cut off within it.",
        "Right: the share of the lost items that the variant gets right as multiple choice; bars: 95% interval over"
        " items (Wilson).",
        *([f"Dashed: guessing ({100 * guessed[0]:.0f}%)."] if len(guessed) else []),
        *left_out_note(left_out),
    )
    columns = data[[*VARIANT, *COUNTS]].assign(**percent).reset_index(drop=True)
    return Selection("Answers that are no longer generated: demoted or erased", columns, notes)


def _range(counts: pd.Series) -> str:
    least, most = round(counts.min()), round(counts.max())
    return f"{most}" if least == most else f"{least} to {most}"


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each variant: ranks of the gold tokens as a divided bar, then the score by multiple choice."""
    variants = variants_of(data)
    names = [_name(data, variant) for variant in variants]
    height = max(ROW_HEIGHT, 0.03 + NAME_LINE * max(map(len, names)))
    chosen = data["twin_percent"].notna().any()
    handles: list = [Patch(color=colour, linewidth=0, label=label) for label, colour in RANKS.values()]
    if chosen:
        handles.append(canvas.error_handle("95% interval over items", upright=False))
    sheet, axes = canvas.page(
        1,
        1 + chosen,
        title=title,
        caption=caption,
        handles=handles,
        row_height=max(1.2, height * len(variants)),
        sharey="row",
    )
    left = axes[0, 0]
    _ranks(left, data, variants)
    if chosen:
        _twins(axes[0, 1], data, variants)
    left.set_yticks(range(len(variants)), ["\n".join(name) for name in names], parse_math=False)
    left.set_ylim(len(variants) - 0.4, -0.6)
    return sheet


def _name(data: pd.DataFrame, variant: Variant) -> list[str]:
    lost = float(rows_of(data, [variant])["lost"].iloc[0])
    return wrap(f"{variant.label} ({lost:.0f})", style.SMALL_SIZE, NAME * style.width())


def _ranks(ax: Axes, data: pd.DataFrame, variants: list[Variant]) -> None:
    for place, variant in enumerate(variants):
        own = rows_of(data, [variant])
        widths = [float(own[f"{name}_percent"].iloc[0]) for name in RANKS]
        starts = np.cumsum([0.0, *widths[:-1]])
        for width, start, (_, colour) in zip(widths, starts, RANKS.values(), strict=True):
            if np.isfinite(width):
                ax.barh(place, width, BAR, left=start, color=colour, linewidth=0, zorder=2)
    ax.set_xlim(0, 100)
    ax.set_xlabel("of the lost answers with a rank (%)")
    ax.grid(False, axis="y")
    canvas.panel_title(ax, "Rank of the gold token")


def _twins(ax: Axes, data: pd.DataFrame, variants: list[Variant]) -> None:
    colours = style.pruner_colours(variant.pruner for variant in variants)
    for place, variant in enumerate(variants):
        own = rows_of(data, [variant]).iloc[0]
        value, low, high = (float(own[f"twin{end}_percent"]) for end in ("", "_low", "_high"))
        if np.isfinite(value):
            ax.plot([low, high], [place, place], color=colours[variant.pruner], linewidth=1.1, zorder=3)
            ax.plot([value], [place], "o", color=colours[variant.pruner], markersize=4.5, zorder=4)
    for chance in data["chance_percent"].dropna().unique():
        ax.axvline(chance, color=style.INK, linestyle=CHANCE_LINE, linewidth=style.THIN, zorder=1)
    ax.set_xlim(-2, 102)
    ax.set_xlabel("of the lost answers (%)")
    canvas.panel_title(ax, "Right as multiple choice")


FIGURE = Figure(select, draw)
