"""Layer protocol: cosine similarity of h, z and p after each single pruned sublayer, over the depth."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.figures import canvas, scales, series, style
from pipeline.figures.base import Figure, Selection
from pipeline.figures.tables import Tables, require
from pipeline.figures.variants import left_out_note, lowest, rows_of, spread, variants_of

ROWS = 4
COSINES = [f"cos_{space}" for space in series.SPACES]


def select(tables: Tables) -> Selection:
    """Deviation `1 - cos` per variant, sublayer, layer and space: mean and range over prompts and steps."""
    rows, temperature = series.at_temperature(tables.protocol("layer"))
    require(rows, COSINES)
    shown, left_out = spread(lowest(variants_of(rows)), ROWS)
    rows = rows_of(rows, shown)
    values = {space: series.deviation(rows[f"cos_{space}"]) for space in series.SPACES}
    data = series.profile(rows, ["pruner", "sparsity", "sublayer", "layer"], values, "range")
    data = data.rename(columns={"quantity": "space", **{name: f"{name}_deviation" for name in series.STATISTICS}})
    data = data.sort_values(["pruner", "sparsity", "sublayer", "space", "layer"], kind="stable")
    notes = (
        "One sublayer pruned at a time, on dense inputs; each pruner at its lowest nonzero sparsity.",
        "Line: mean over prompts and steps; band: minimum to maximum.",
        "The cosine axis is logarithmic in its distance from 1.",
        f"Temperature {temperature:g}.",
        *left_out_note(left_out),
    )
    return Selection("Similarity to the dense model after pruning a single sublayer", data, notes)


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """A row for each pruner; attention on the left, MLP on the right."""
    data = data.rename(columns={f"{name}_deviation": name for name in series.STATISTICS})
    variants = variants_of(data)
    sublayers = [sublayer for sublayer in series.SUBLAYER_NAMES if (data["sublayer"] == sublayer).any()]
    handles = [canvas.line_handle(style.SPACE_NAMES[space], style.SPACE_COLOURS[space]) for space in series.SPACES]
    sheet, axes = canvas.page(
        len(variants),
        len(sublayers),
        title=title,
        caption=caption,
        handles=handles,
        gaps=(0.32, 0.2),
        margins=(0.78, 0.12),
        sharey="row",
    )
    for row, variant in zip(axes, variants, strict=True):
        own = rows_of(data, [variant])
        for ax, sublayer in zip(row, sublayers, strict=True):
            name = series.SUBLAYER_NAMES[sublayer]
            part = own[own["sublayer"] == sublayer]
            if part.empty:
                canvas.empty_panel(ax, f"{variant.pruner} has no {name} measures")
                continue
            for space in series.SPACES:
                curve = part[part["space"] == space]
                canvas.line_and_band(ax, curve["layer"], curve, style.SPACE_COLOURS[space])
            scales.decade_axis(ax, own[series.STATISTICS].to_numpy().ravel(), cosine=True)
            canvas.panel_title(ax, f"{variant.label}: {name}")
            scales.whole_steps(ax)
    canvas.outer_labels(axes, "layer", "cosine similarity")
    return sheet


FIGURE = Figure(select, draw)
