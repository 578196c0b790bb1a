"""Layer protocol over depth: cosine similarity of h, z and p after pruning each sublayer alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.plot import canvas, scales, style
from pipeline.plot.base import Selection, Span
from pipeline.plot.equal_curves import draw_once
from pipeline.plot.variant_notes import left_out_note, not_shown_note
from pipeline.tables.read import Tables, require
from pipeline.tables.variants import (
    VARIANT,
    Variant,
    lowest,
    rows_of,
    spread,
    variants_of,
)

VARIANTS = 4  # with a panel for attention and one for the MLP each
COSINES = [f"cos_{space}" for space in series.SPACES]
NAMES = {name: f"{name}_deviation" for name in series.STATISTICS}


def select(tables: Tables, *, weights: bool, title: str, notes: tuple[str, ...]) -> Selection:
    """Select the deviation `1 - cos` per variant, sublayer, layer and space: median and quartiles over prompts.

    Args:
        weights: whether to select pruners that change weights, or those that drop whole units.
        notes: sentences of the caption on how the one sublayer is pruned.
    """
    rows, temperature = series.at_temperature(tables.changing(tables.protocol("layer"), weights=weights))
    require(rows, COSINES)
    everyone = variants_of(rows)
    rows = rows_of(rows, lowest(everyone))
    values = {space: series.deviation(rows[f"cos_{space}"]) for space in series.SPACES}
    curves = series.profile(rows, [*VARIANT, "sublayer", "layer"], values)
    curves, equal_note = draw_once(curves, ["quantity", "layer"], series.STATISTICS)
    shown, left_out = spread(variants_of(curves), VARIANTS)
    data = rows_of(curves, shown).rename(columns={"quantity": "space", **NAMES})
    data = data.sort_values([*VARIANT, "sublayer", "space", "layer"], kind="stable")
    notes += (
        f"Of each of {rows['probe'].nunique()} probe prompts the mean over its steps; line: median over prompts, band:"
        " quartiles.",
        scales.COSINE_NOTE,
        f"Temperature {temperature:g}.",
        *equal_note,
        *left_out_note(left_out),
        *not_shown_note(variant for variant in everyone if variant not in lowest(everyone)),
    )
    return Selection(title, data, notes)


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a panel for each variant and sublayer that was measured, two in a row."""
    data = data.rename(columns={name: statistic for statistic, name in NAMES.items()})
    panels = panels_of(data)
    columns = min(2, len(panels))
    handles = [canvas.line_handle(style.SPACE_NAMES[space], style.SPACE_COLOURS[space]) for space in series.SPACES]
    handles += canvas.statistic_handles()
    sheet, axes = canvas.page(
        -(-len(panels) // columns),
        columns,
        title=title,
        caption=caption,
        handles=handles,
        sharey="row",
    )
    for ax, (variant, sublayer) in zip(axes.flat, panels, strict=False):
        own = rows_of(data, [variant])
        own = own[own["sublayer"] == sublayer]
        for space in series.SPACES:
            curve = own[own["space"] == space]
            canvas.line_and_band(ax, curve["layer"], curve, style.SPACE_COLOURS[space])
        scales.decade_axis(ax, data[series.STATISTICS].to_numpy().ravel(), cosine=True)
        canvas.panel_title(ax, f"{variant.label}: {series.SUBLAYER_NAMES[sublayer]}")
        scales.whole_steps(ax)
    spare = axes.flat[len(panels) :]
    for ax in spare:
        ax.set_axis_off()
    canvas.outer_labels(axes, "layer", "cosine similarity")
    for ax in spare:
        ax.remove()
    return sheet


def span(data: pd.DataFrame) -> Span:
    """Return how wide the profile is in print: a column for a single panel."""
    return "column" if len(panels_of(data)) == 1 else "page"


def panels_of(data: pd.DataFrame) -> list[tuple[Variant, str]]:
    """Return each variant with each sublayer that it has rows of, attention first."""
    pairs = [(variant, sublayer) for variant in variants_of(data) for sublayer in series.SUBLAYER_NAMES]
    return [
        (variant, sublayer) for variant, sublayer in pairs if (rows_of(data, [variant])["sublayer"] == sublayer).any()
    ]
