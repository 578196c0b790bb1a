"""Free-running: six measures over steps for attention dropping, weight pruning and weight-only quantization."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.plot import canvas, scales, variant_lines
from pipeline.plot.base import Figure, Selection
from pipeline.plot.variant_notes import left_out_note
from pipeline.tables.read import WEIGHT, Tables, require
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import (
    VARIANT,
    Variant,
    magnitude,
    ordered,
    preferred,
    rows_of,
    variants_of,
)

LINES = 6
# Quantity -> (column, panel title), in the order of the paper's figure 12. Of cosines, the distance from 1.
PANELS = {
    "1 - cos h": ("cos_h", "cosine of h"),
    "1 - cos z": ("cos_z", "cosine of z"),
    "1 - cos p": ("cos_p", "cosine of p"),
    "rms dz": ("rms_dz", r"RMS of $\Delta z$"),
    "var dz": ("var_uniform", r"$\mathrm{Var}(\Delta z)$"),
    "KL": ("kl", r"$\mathrm{KL}(p\,\|\,q)$ (nats)"),
}
CLASSES = ("attention dropper", "weight pruner", "weight-only quantization")
LEAST_CLASSES = 2  # fewer leave nothing to compare
SPARSITIES = ("8", "4:8", "2:4")  # Drop-8A and 4:8 as in the paper, if they were run


def select(tables: Tables) -> Selection:
    """Select the six measures per variant and step: median and quartiles over prompts."""
    rows, temperature = series.at_temperature(tables.protocol("free_running"))
    require(rows, [column for column, _ in PANELS.values()])
    values = {
        name: series.deviation(rows[column]) if column.startswith("cos") else rows[column].astype(float)
        for name, (column, _) in PANELS.items()
    }
    steps = series.well_covered(series.profile(rows, [*VARIANT, "step"], values))
    steps, identical_note = series.drop_identical(steps, dict.fromkeys(PANELS, 0.0))
    classes = _classes(tables, steps)
    shown, left_out = _take_turns(classes)
    absent = [name for name, members in classes.items() if not members]
    if len(CLASSES) - len(absent) < LEAST_CLASSES:
        raise MissingData(
            f"fewer than two kinds of compression were measured free-running under these settings: there is no "
            f"{' and no '.join(absent)}"
        )
    order = {name: place for place, name in enumerate(PANELS)}
    data = rows_of(steps, shown).sort_values("quantity", key=lambda names: names.map(order), kind="stable")
    data = data.sort_values(VARIANT, kind="stable")
    notes = (
        "Both models continue the same prompts; final state, compared step by step.",
        "One line per pruner: attention sublayers, weights (4:8 if it was run), or fewer bits.",
        series.step_note(rows),
        scales.COSINE_NOTE,
        "The variance weights all vocabulary entries equally.",
        f"Temperature {temperature:g}.",
        *((f"Not measured: {', '.join(absent)}.",) if absent else ()),
        *identical_note,
        *left_out_note(left_out),
    )
    columns = [*VARIANT, "quantity", "step", *series.STATISTICS, "n"]
    return Selection("Free-running deviation of kinds of compression over steps", data[columns], notes)


def _classes(tables: Tables, steps: pd.DataFrame) -> dict[str, list[Variant]]:
    """Sort one variant of each pruner into `CLASSES`.

    A weight pruner that changes the logits at sparsity 0 counts as quantization.
    """
    found: dict[str, list[Variant]] = {name: [] for name in CLASSES}
    for variant in preferred(variants_of(steps), SPARSITIES):
        unit = tables.unit(variant.pruner)
        changes = rows_of(steps[steps["quantity"] == "rms dz"], [variant])["median"].max() > series.ROUNDING
        if unit == "attention":
            found[CLASSES[0]].append(variant)
        elif unit == WEIGHT:
            found[CLASSES[2 if changes and magnitude(variant.sparsity) == 0 else 1]].append(variant)
    return found


def _take_turns(classes: dict[str, list[Variant]]) -> tuple[list[Variant], list[Variant]]:
    """Choose at most `LINES` variants, one of each class before a second of any; return those left out, too."""
    turns = [(place, variant) for members in classes.values() for place, variant in enumerate(members)]
    queue = [variant for _, variant in sorted(turns, key=lambda turn: turn[0])]
    return ordered(queue[:LINES]), ordered(queue[LINES:])


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw two rows of three panels, with a line for each variant."""
    variants = variants_of(data)
    sheet, axes = canvas.page(
        2,
        3,
        title=title,
        caption=caption,
        handles=variant_lines.handles(variants),
    )
    for ax, (quantity, (column, name)) in zip(axes.flat, PANELS.items(), strict=True):
        part = data[data["quantity"] == quantity]
        canvas.panel_title(ax, name)
        if part.empty:
            canvas.empty_panel(ax, f"no finite {quantity}")
            continue
        variant_lines.draw(ax, part, variants)
        scales.decade_axis(ax, part[series.STATISTICS].to_numpy().ravel(), cosine=column.startswith("cos"))
        scales.whole_steps(ax)
    canvas.outer_labels(axes, "generation step", "")
    return sheet


FIGURE = Figure(select, draw, version=2)
