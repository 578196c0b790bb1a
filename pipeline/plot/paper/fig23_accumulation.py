"""Error accumulated over depth (teacher-forced) against feedback through the model's own tokens (free-running)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.typing import LineStyleType

from pipeline.analysis import series
from pipeline.analysis.first_difference import COLUMN, first_differences
from pipeline.plot import canvas, first_difference, scales, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.panel_rows import Column, panel_rows
from pipeline.plot.tiles import Strand
from pipeline.plot.variant_notes import left_out_note
from pipeline.tables.read import Tables, require
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, rows_of, select_preferred, variants_of

ROWS = 5
PROTOCOLS: dict[str, LineStyleType] = {"teacher_forced": "-", "free_running": (0, (3, 1.5))}
# Quantity -> (column, label of the y axis, colour).
PANELS = {
    **{
        f"1 - cos {space}": (f"cos_{space}", f"cosine of {space}", style.SPACE_COLOURS[space])
        for space in series.SPACES
    },
    "KL": ("kl", r"$\mathrm{KL}(p\,\|\,q)$ (nats)", style.SPACE_COLOURS["p"]),
}
POSITION = [*VARIANT, "prompt", "step"]


def select(tables: Tables) -> Selection:
    """Select median cosines and KL of the final state per variant, step and protocol, over prompts that both have."""
    rows, temperature = _both(tables)
    require(rows, [column for column, _, _ in PANELS.values()])
    values = {
        name: series.deviation(rows[column]) if column.startswith("cos") else rows[column].astype(float)
        for name, (column, _, _) in PANELS.items()
    }
    steps = series.profile(rows, [*VARIANT, "protocol", "step"], values)
    steps = series.well_covered(steps)
    steps, identical_note = series.drop_identical(steps, dict.fromkeys(PANELS, 0.0))
    shown, left_out = select_preferred(variants_of(steps), ("8", "4:8"), ROWS)
    firsts = first_differences(tables.trajectories)
    data = rows_of(steps, shown).merge(firsts, on=VARIANT, how="left")
    columns = [*VARIANT, "quantity", "protocol", "step", *series.STATISTICS, "n", COLUMN]
    data = data.sort_values(columns[:5], kind="stable")
    notes = (
        "Teacher-forced: the pruned model reads the dense model's tokens, so its error accumulates over depth only.",
        "Free-running: it reads its own, so the gap between the lines is feedback through different tokens;"
        " until the tokens differ, both protocols compare the same states.",
        scales.COSINE_NOTE,
        f"Final state. {series.step_note(rows)} Only prompts measured under both protocols count.",
        f"Temperature {temperature:g}.",
        *first_difference.mark_notes(data),
        *identical_note,
        *left_out_note(left_out),
    )
    return Selection("Accumulated error and feedback over steps", data[columns], notes)


def _both(tables: Tables) -> tuple[pd.DataFrame, float]:
    """Return the rows of both protocols at one temperature, at the positions that both have.

    Raises:
        MissingData: if there are no such positions.
    """
    frames = [tables.protocol(name) for name in PROTOCOLS]
    rows = pd.concat(frames, ignore_index=True)
    rows = rows.drop_duplicates([*POSITION, "protocol", "temperature"])
    twice = rows.groupby([*POSITION, "temperature"])["protocol"].transform("size") == len(PROTOCOLS)
    if not twice.any():
        raise MissingData("no position was measured both teacher-forced and free-running under these settings")
    return series.at_temperature(rows[twice])


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each variant, a column for each measure."""
    variants = variants_of(data)
    handles = [
        canvas.line_handle("teacher-forced", style.INK, PROTOCOLS["teacher_forced"]),
        canvas.line_handle("free-running", style.INK, PROTOCOLS["free_running"]),
        *canvas.statistic_handles(),
        *first_difference.mark_handles(data),
    ]
    rows = [rows_of(data, [variant]) for variant in variants]
    parts = [own[own["quantity"] == quantity] for own in rows for quantity in PANELS]
    empty = {
        panel: f"{variants[panel // len(PANELS)].label}: no finite {list(PANELS)[panel % len(PANELS)]}"
        for panel, part in enumerate(parts)
        if part.empty
    }
    page = panel_rows(
        [
            Column(_scale(data, quantity, len(variants)), title=name, colour=colour)
            for quantity, (_, name, colour) in PANELS.items()
        ],
        [""] * len(parts),
        first_difference.steps_shown(data),
        xlabel="generation step",
        title=title,
        caption=caption,
        handles=handles,
        empty=empty,
        names=[variant.label for variant in variants],
    )
    for place, (_, _, colour) in enumerate(PANELS.values()):
        for protocol, line in PROTOCOLS.items():
            strands = [
                Strand.of(panel, part[part["protocol"] == protocol])
                for panel, part in enumerate(parts)
                if panel % len(PANELS) == place
            ]
            # Where both protocols compare the same states, black lies under the colour.
            page.draw(strands, style.INK if protocol == "teacher_forced" else colour, line, style.LINE)
    first_difference.mark(page, {panel: part for panel, part in enumerate(parts) if panel not in empty})
    return page.sheet


def _scale(data: pd.DataFrame, quantity: str, rows: int) -> scales.Decades:
    """Return the axis of a column: the same limits in every row make rows comparable."""
    values = data.loc[data["quantity"] == quantity, series.STATISTICS].to_numpy().ravel()
    return scales.Decades.of(values, cosine=quantity != "KL", ticks=scales.most_ticks(rows))


FIGURE = Figure(select, draw, version=4)
