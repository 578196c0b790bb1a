"""Free running: cosine of the final h, z and p and KL over steps, while each model decodes its own text."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from pipeline.figures import canvas, scales, series, style
from pipeline.figures.base import Figure, Selection
from pipeline.figures.tables import Tables, require
from pipeline.figures.variants import left_out_note, rows_of, spread, variants_of

ROWS = 6
# Label of the y axis -> what the panel shows.
PANELS = {"cosine of h and z": ("h", "z"), "cosine of p": ("p",), r"$\mathrm{KL}(p\,\|\,q)$": ("KL",)}
COLOURS = {**style.SPACE_COLOURS, "KL": style.SPACE_COLOURS["p"]}
MARK = (0, (1, 1.4))


def select(tables: Tables) -> Selection:
    """Cosines and KL of the final state per variant and step, and the first step with different tokens."""
    rows, temperature = series.at_temperature(tables.protocol("free_running"))
    require(rows, [*(f"cos_{space}" for space in series.SPACES), "kl"])
    values = {space: rows[f"cos_{space}"] for space in series.SPACES} | {"KL": rows["kl"].clip(lower=0.0)}
    steps = series.well_covered(series.profile(rows, ["pruner", "sparsity", "step"], values, "quartiles"))
    steps, identical_note = series.drop_identical(steps, {"h": 1.0, "z": 1.0, "p": 1.0, "KL": 0.0})
    shown, left_out = spread(variants_of(steps), ROWS)
    data = rows_of(steps, shown).merge(_first_differences(tables.trajectories), on=["pruner", "sparsity"], how="left")
    columns = ["pruner", "sparsity", "quantity", "step", *series.STATISTICS, "n", "first_difference"]
    data = data.sort_values(["pruner", "sparsity", "quantity", "step"], kind="stable")
    notes = (
        "Both models decode greedily from the same prompts; final state, compared step by step.",
        series.STEP_NOTE,
        f"Temperature {temperature:g}.",
        *_mark_notes(data),
        *identical_note,
        *left_out_note(left_out),
    )
    return Selection("Free running: similarity to the dense model over steps", data[columns], notes)


def _first_differences(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Per variant, the median over prompts of the first step at which the tokens differ.

    Infinite where half of the prompts or more never differ; variants without trajectories have no row.
    """
    columns = ["pruner", "sparsity", "first_difference"]
    if trajectories.empty:
        return pd.DataFrame({name: pd.Series(dtype=float if name == columns[2] else str) for name in columns})
    differs = trajectories["dense_token"] != trajectories["pruned_token"]
    steps = trajectories["step"].where(differs, np.inf)
    first = steps.groupby([trajectories[name] for name in ("pruner", "sparsity", "prompt")]).min()
    # The lower median is an observed step, and stays finite as long as half of the prompts differ.
    median = first.groupby(level=[0, 1]).quantile(0.5, interpolation="lower")
    return median.rename("first_difference").reset_index()


def _mark_notes(data: pd.DataFrame) -> list[str]:
    """What the dotted line is, and which variants have none for which reason."""
    firsts = data.drop_duplicates(["pruner", "sparsity"])
    notes = []
    if np.isfinite(firsts["first_difference"]).any():
        notes.append("Dotted: median over prompts of the first step with different tokens.")
    for rows, reason in (
        (firsts[np.isinf(firsts["first_difference"])], "Most texts never differ"),
        (firsts[firsts["first_difference"].isna()], "No tokens recorded"),
    ):
        if not rows.empty:
            notes.append(f"{reason}: {', '.join(variant.label for variant in variants_of(rows))}.")
    return notes


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """A row for each variant; cosine of h and z, cosine of p, and KL from left to right."""
    variants = variants_of(data)
    handles = [canvas.line_handle(style.SPACE_NAMES[space], style.SPACE_COLOURS[space]) for space in series.SPACES]
    if np.isfinite(data["first_difference"]).any():
        handles.append(canvas.line_handle("first different token (median)", style.INK, MARK))
    sheet, axes = canvas.page(len(variants), 3, title=title, caption=caption, handles=handles, gaps=(0.3, 0.5))
    for row, variant in zip(axes, variants, strict=True):
        own = rows_of(data, [variant])
        for ax, quantities in zip(row, PANELS.values(), strict=True):
            if not own["quantity"].isin(quantities).any():
                canvas.empty_panel(ax, f"{variant.label}: no finite {' or '.join(quantities)}")
                continue
            _panel(ax, own, quantities)
            _limits(ax, data[data["quantity"].isin(quantities)], quantities)
            canvas.panel_title(ax, variant.label)
    canvas.outer_labels(axes, "generation step", list(PANELS))
    return sheet


def _panel(ax: Axes, own: pd.DataFrame, quantities: tuple[str, ...]) -> None:
    for quantity in quantities:
        curve = own[own["quantity"] == quantity]
        canvas.line_and_band(ax, curve["step"], curve, COLOURS[quantity])
    first = own["first_difference"].iloc[0]
    if np.isfinite(first):
        ax.axvline(first, color=style.INK, linestyle=MARK, linewidth=1)
    scales.whole_steps(ax)


def _limits(ax: Axes, rows: pd.DataFrame, quantities: tuple[str, ...]) -> None:
    """The same limits down a column, so that rows compare."""
    values = rows[series.STATISTICS].to_numpy()
    if quantities == ("KL",):
        scales.decade_axis(ax, values.ravel())
    else:
        span = max(1.0 - values.min(), 0.01)
        ax.set_ylim(1.0 - 1.08 * span, 1.0 + 0.08 * span)


FIGURE = Figure(select, draw)
