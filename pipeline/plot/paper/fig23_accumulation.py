"""Error accumulated over depth (teacher-forced) against feedback through the model's own tokens (free-running)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.typing import LineStyleType

from pipeline.analysis import series
from pipeline.plot import canvas, first_difference, scales, style
from pipeline.plot.base import Figure, Selection
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
    firsts = first_difference.first_differences(tables.trajectories)
    data = rows_of(steps, shown).merge(firsts, on=VARIANT, how="left")
    columns = [*VARIANT, "quantity", "protocol", "step", *series.STATISTICS, "n", first_difference.COLUMN]
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
    sheet, axes = canvas.page(len(variants), 4, title=title, caption=caption, handles=handles)
    for row, variant in zip(axes, variants, strict=True):
        own = rows_of(data, [variant])
        for ax, (quantity, (_, _, colour)) in zip(row, PANELS.items(), strict=True):
            part = own[own["quantity"] == quantity]
            if part.empty:
                canvas.empty_panel(ax, f"{variant.label}: no finite {quantity}")
                continue
            _panel(ax, part, colour)
            # The same limits in every row of a column make rows comparable.
            shared = data.loc[data["quantity"] == quantity, series.STATISTICS]
            ticks = scales.most_ticks(len(variants))
            scales.decade_axis(ax, shared.to_numpy().ravel(), cosine=quantity != "KL", ticks=ticks)
        height = canvas.panel_height(len(variants))
        row[0].set_ylabel("\n".join(canvas.wrap(variant.label, style.TEXT_SIZE, height)))
    for ax, (_, name, colour) in zip(axes[0], PANELS.values(), strict=True):
        canvas.panel_title(ax, name, colour)
    for ax in axes[-1]:
        ax.set_xlabel("generation step")
    return sheet


def _panel(ax: Axes, part: pd.DataFrame, colour: str) -> None:
    for name, line in PROTOCOLS.items():
        curve = part[part["protocol"] == name]
        # Where both protocols compare the same states, black lies under the colour.
        canvas.line_and_band(ax, curve["step"], curve, style.INK if name == "teacher_forced" else colour, line)
    first_difference.mark(ax, part)
    scales.whole_steps(ax)


FIGURE = Figure(select, draw, version=3)
