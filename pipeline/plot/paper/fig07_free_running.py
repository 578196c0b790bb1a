"""Free-running: cosine of the final h, z and p and KL over steps, while each model decodes its own text."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.analysis.first_difference import COLUMN, first_differences
from pipeline.plot import canvas, first_difference, scales, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.panel_rows import Column, panel_rows
from pipeline.plot.tiles import Strand
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
    data = rows_of(steps, shown).merge(first_differences(tables.trajectories), on=VARIANT, how="left")
    columns = [*VARIANT, "quantity", "step", *series.STATISTICS, "n", COLUMN]
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
    columns = [
        Column(_scale(data[data["quantity"].isin(quantities)], quantities), label)
        for label, quantities in PANELS.items()
    ]
    panels = dict(enumerate((rows_of(data, [variant]), names) for variant in variants for names in PANELS.values()))
    empty = {
        panel: f"{variants[panel // len(PANELS)].label}: no finite {' or '.join(names)}"
        for panel, (own, names) in panels.items()
        if not own["quantity"].isin(names).any()
    }
    page = panel_rows(
        columns,
        [variant.label for variant in variants for _ in PANELS],
        first_difference.steps_shown(data),
        xlabel="generation step",
        title=title,
        caption=caption,
        handles=handles,
        empty=empty,
    )
    for quantity, colour in COLOURS.items():
        strands = [
            Strand.of(panel, own[own["quantity"] == quantity])
            for panel, (own, names) in panels.items()
            if quantity in names
        ]
        page.draw(strands, colour, "-", style.LINE)
    first_difference.mark(page, {panel: own for panel, (own, _) in panels.items() if panel not in empty})
    return page.sheet


def _scale(rows: pd.DataFrame, quantities: tuple[str, ...]) -> scales.Decades:
    """Return the axis of a column: the same limits in every row make rows comparable."""
    values, ticks = rows[series.STATISTICS].to_numpy().ravel(), scales.most_ticks(len(variants_of(rows)))
    return scales.Decades.of(values, cosine=quantities != ("KL",), ticks=ticks)


FIGURE = Figure(select, draw, version=4)
