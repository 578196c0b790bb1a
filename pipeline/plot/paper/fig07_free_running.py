"""Free-running: cosine of the final h, z and p and KL over steps, while each model decodes its own text."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.plot import canvas, first_difference, scales, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.variant_notes import left_out_note
from pipeline.tables.read import Tables, require
from pipeline.tables.variants import VARIANT, rows_of, spread, variants_of

ROWS = 6
# Label of the y axis -> quantities of the panel.
PANELS = {"cosine of h and z": ("h", "z"), "cosine of p": ("p",), r"$\mathrm{KL}(p\,\|\,q)$": ("KL",)}
COLOURS = {**style.SPACE_COLOURS, "KL": style.SPACE_COLOURS["p"]}


def select(tables: Tables) -> Selection:
    """Select cosines and KL of the final state per variant and step, and the first step with different tokens."""
    rows, temperature = series.at_temperature(tables.protocol("free_running"))
    require(rows, [*(f"cos_{space}" for space in series.SPACES), "kl"])
    values = {space: series.deviation(rows[f"cos_{space}"]) for space in series.SPACES} | {
        "KL": rows["kl"].clip(lower=0.0)
    }
    steps = series.well_covered(series.profile(rows, [*VARIANT, "step"], values))
    steps, identical_note = series.drop_identical(steps, dict.fromkeys((*series.SPACES, "KL"), 0.0))
    shown, left_out = spread(variants_of(steps), ROWS)
    data = rows_of(steps, shown).merge(first_difference.first_differences(tables.trajectories), on=VARIANT, how="left")
    columns = [*VARIANT, "quantity", "step", *series.STATISTICS, "n", first_difference.COLUMN]
    data = data.sort_values([*VARIANT, "quantity", "step"], kind="stable")
    notes = (
        "Both models continue the same prompts; final state, compared step by step.",
        series.step_note(rows),
        scales.COSINE_NOTE,
        f"Temperature {temperature:g}.",
        *first_difference.mark_notes(data),
        *identical_note,
        *left_out_note(left_out),
    )
    return Selection("Free-running similarity to the dense model over steps", data[columns], notes)


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each variant: cosine of h and z, cosine of p, and KL from left to right."""
    variants = variants_of(data)
    handles = [canvas.line_handle(style.SPACE_NAMES[space], style.SPACE_COLOURS[space]) for space in series.SPACES]
    handles += canvas.statistic_handles()
    handles += first_difference.mark_handles(data)
    sheet, axes = canvas.page(len(variants), 3, title=title, caption=caption, handles=handles)
    for row, variant in zip(axes, variants, strict=True):
        own = rows_of(data, [variant])
        for ax, quantities in zip(row, PANELS.values(), strict=True):
            if not own["quantity"].isin(quantities).any():
                canvas.empty_panel(ax, f"{variant.label}: no finite {' or '.join(quantities)}")
                continue
            _panel(ax, own, quantities)
            _limits(ax, data[data["quantity"].isin(quantities)], quantities)
            room = style.width() / len(PANELS) - 0.6
            canvas.panel_title(ax, "\n".join(canvas.wrap(variant.label, style.TEXT_SIZE, room)))
    canvas.outer_labels(axes, "generation step", list(PANELS))
    return sheet


def _panel(ax: Axes, own: pd.DataFrame, quantities: tuple[str, ...]) -> None:
    for quantity in quantities:
        curve = own[own["quantity"] == quantity]
        canvas.line_and_band(ax, curve["step"], curve, COLOURS[quantity])
    first_difference.mark(ax, own)
    scales.whole_steps(ax)


def _limits(ax: Axes, rows: pd.DataFrame, quantities: tuple[str, ...]) -> None:
    """Set the same limits in every row of a column, to make rows comparable."""
    values, ticks = rows[series.STATISTICS].to_numpy().ravel(), scales.most_ticks(len(variants_of(rows)))
    scales.decade_axis(ax, values, cosine=quantities != ("KL",), ticks=ticks)


FIGURE = Figure(select, draw, version=3)
