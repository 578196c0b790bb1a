"""Hierarchy of representations h, z, p and the decoding loop, with the deviation measured at each stage."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from pipeline.analysis import series
from pipeline.analysis.final_states import leave_out_unchanged, on_dense_trajectory
from pipeline.plot import canvas, scales, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.variant_notes import left_out_note
from pipeline.tables.read import Tables, require
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, rows_of, select_preferred, variants_of

LINES = 6
FREE = "free_running"
# Quantity -> (column, label of its strip, colour).
STRIPS = {
    "1 - cos h": ("cos_h", r"$1-\cos h$", style.SPACE_COLOURS["h"]),
    "1 - cos z": ("cos_z", r"$1-\cos z$", style.SPACE_COLOURS["z"]),
    "1 - cos p": ("cos_p", r"$1-\cos p$", style.SPACE_COLOURS["p"]),
    "KL": ("kl", r"$\mathrm{KL}(p\,\|\,q)$", style.SPACE_COLOURS["p"]),
    "flip": ("flip", "argmax flips (%)", style.INK),
}
COSINES = ("1 - cos h", "1 - cos z", "1 - cos p")
# Stage -> (first and last strip below its box, name, symbol, colour).
STAGES = (
    (0, 0, "embedding", r"$h$", style.SPACE_COLOURS["h"]),
    (1, 1, "logits", r"$z = W h$", style.SPACE_COLOURS["z"]),
    (2, 3, "probabilities", r"$p = \mathrm{softmax}(z / T)$", style.SPACE_COLOURS["p"]),
    (4, 4, "next token", r"$\mathrm{argmax}\ p$", style.INK),
)
BOX = (0.38, 0.98)  # bottom and top of the boxes, in the height of the diagram
READ = "tokens\nso far"
OFFSET = 0.16  # of the two protocols from the middle of a row
LOOP = 0.06  # height of the arrow back to the first box


def select(tables: Tables) -> Selection:
    """Select the deviation of each stage per variant, on the dense model's tokens and on the model's own."""
    rows, protocol, said = on_dense_trajectory(tables)
    frames = [rows]
    try:
        free, temperature = series.at_temperature(tables.protocol(FREE))
        frames.append(free)
        loop = f"Open: free-running, each model on its own tokens; temperature {temperature:g}."
    except MissingData:
        loop = "The free-running protocol was not measured."
    rows = pd.concat(frames, ignore_index=True)
    require(rows, [column for column, _, _ in STRIPS.values()])
    rows, identical_note = leave_out_unchanged(rows)
    values = {name: series.deviation(rows[STRIPS[name][0]]) for name in COSINES}
    values |= {"KL": rows["kl"].clip(lower=0.0), "flip": 100.0 * rows["flip"]}
    data = series.profile(rows, [*VARIANT, "protocol"], values)
    shown, left_out = select_preferred(variants_of(data[data["protocol"] == protocol]), ("8", "4:8"), LINES)
    data = rows_of(data, shown).sort_values([*VARIANT, "protocol", "quantity"], kind="stable")
    notes = (
        f"Numbers in the boxes: {shown[0].label}, teacher-forced.",
        f"Filled: {said[0].lower()}{said[1:]}",
        loop,
        f"Of each of {rows['probe'].nunique()} probe prompts the mean over its steps; point: median over prompts, bar:"
        " quartiles; the cosines share one axis.",
        "Next token: percentage of positions whose argmax differs.",
        *identical_note,
        *left_out_note(left_out),
    )
    columns = [*VARIANT, "protocol", "quantity", *series.STATISTICS, "n"]
    return Selection("From hidden states to text: the deviation at each stage", data[columns], notes)


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw the diagram, and below each stage a strip with a row for each variant."""
    variants = variants_of(data)
    handles = [canvas.line_handle("on the dense model's tokens (median)", style.INK, "", "o")]
    if (data["protocol"] == FREE).any():
        handles.append(canvas.line_handle("free-running (median)", style.INK, "", "o"))
        handles[1].set_markerfacecolor("white")
    handles.append(canvas.line_handle("quartiles over prompts", style.INK))
    sheet, axes = canvas.page(
        2, len(STRIPS), title=title, caption=caption, handles=handles,
        sharey="row",
    )  # fmt: skip
    for ax, quantity in zip(axes[1], STRIPS, strict=True):
        _strip(ax, data, quantity)
    axes[1, 0].set_yticks(range(len(variants)), [variant.label for variant in variants])
    axes[1, 0].set_ylim(len(variants) - 0.5, -0.5)
    _diagram(sheet, axes[0], rows_of(data, variants[:1]))
    return sheet


def _strip(ax: Axes, data: pd.DataFrame, quantity: str) -> None:
    """Draw median and quartiles of each variant, on the dense model's tokens above those of its own text."""
    _, name, colour = STRIPS[quantity]
    part = data[data["quantity"] == quantity]
    both = (part["protocol"] == FREE).any()
    for place, variant in enumerate(variants_of(data)):
        for row in rows_of(part, [variant]).itertuples():
            y = place + (OFFSET if row.protocol == FREE else -OFFSET) * both
            ax.plot([row.low, row.high], [y, y], color=colour, linewidth=1, alpha=0.6, zorder=2)
            face = "white" if row.protocol == FREE else colour
            ax.plot([row.median], [y], "o", color=colour, markerfacecolor=face, markersize=4, zorder=3)
    if quantity == "flip":
        ax.set_xlim(-4, 104)
        ax.set_xticks([0, 50, 100])
    else:
        together = COSINES if quantity in COSINES else (quantity,)
        shared = data.loc[data["quantity"].isin(together), series.STATISTICS]
        scales.signed_axis(ax, "x", shared.to_numpy().ravel(), ticks=3)
    ax.set_xlabel(name, color=colour)


def _diagram(sheet: Canvas, axes: list[Axes], own: pd.DataFrame) -> None:
    """Draw boxes over their strips, arrows between them, and the loop from the next token back to the embedding."""
    axes[0].set_ylabel(READ, rotation=0, size=style.SMALL_SIZE, ha="right", va="center", labelpad=15)
    canvas.settle(sheet)  # with room for that label, which has no axes of its own in the end
    places = [ax.get_position() for ax in axes]
    for ax in axes:
        ax.remove()
    left, right = places[0].x0, places[-1].x1
    ax = sheet.add_axes((0.0, places[0].y0, 1.0, places[0].height), label="diagram")
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    medians = own[own["protocol"] != FREE].set_index("quantity")["median"]
    edges = []
    for first, last, name, symbol, colour in STAGES:
        start, end = places[first].x0, places[last].x1
        values = [
            _measured(quantity, medians[quantity]) for quantity in list(STRIPS)[first : last + 1] if quantity in medians
        ]
        _box(ax, (start, end), (name, symbol, "    ".join(values)), colour)
        edges.append((start, end))
    middle = sum(BOX) / 2
    for (_, start), (end, _) in pairwise(edges):
        _arrow(ax, (start, middle), (end, middle))
    _loop(ax, (sum(edges[-1]) / 2, sum(edges[0]) / 2))
    _arrow(ax, (left - 0.045, middle), (left, middle))
    ax.text(left - 0.055, middle, READ, ha="right", va="center", size=style.SMALL_SIZE)
    ax.text((left + right) / 2, LOOP + 0.03, "appended to the text and read at the next step", ha="center", va="bottom",
            size=style.SMALL_SIZE, color=style.GREY)  # fmt: skip


def _box(ax: Axes, span: tuple[float, float], texts: tuple[str, str, str], colour: str) -> None:
    """Draw name, symbol and measured deviation in a rounded box."""
    bottom, top = BOX
    ax.add_patch(
        FancyBboxPatch(
            (span[0], bottom),
            span[1] - span[0],
            top - bottom,
            boxstyle="round,pad=0,rounding_size=0.02",
            mutation_aspect=3.5,
            facecolor=f"{colour}18",
            edgecolor=colour,
            linewidth=1.2,
        )
    )
    heights = (0.8, 0.5, 0.17)
    sizes = (style.TEXT_SIZE, style.TEXT_SIZE + 1, style.SMALL_SIZE)
    for text, height, size in zip(texts, heights, sizes, strict=True):
        y = bottom + height * (top - bottom)
        ax.text(sum(span) / 2, y, text, ha="center", va="center", size=size, color=colour)


def _measured(quantity: str, value: float) -> str:
    if quantity == "flip":
        return f"{value:.0f}% flipped"
    digits = f"{value:#.2g}".rstrip(".")  # two of them, also where the last is a zero
    return f"{STRIPS[quantity][1]} = {digits}"


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, shrinkA=0, shrinkB=0, color=style.INK))


def _loop(ax: Axes, ends: tuple[float, float]) -> None:
    """Draw the loop: down from the last box, back below all boxes, and up into the first."""
    start, end = ends
    ax.plot([start, start, end], [BOX[0], LOOP, LOOP], color=style.INK, linewidth=1, solid_joinstyle="miter")
    _arrow(ax, (end, LOOP), (end, BOX[0]))


FIGURE = Figure(select, draw, version=3)
