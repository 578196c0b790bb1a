"""Layer protocol: measured deviation of p and KL against the estimates, over steps at one middle layer."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.typing import LineStyleType

from pipeline.figures import canvas, scales, series, style
from pipeline.figures.base import Figure, Selection
from pipeline.figures.middle import middle_steps
from pipeline.figures.tables import Tables, require
from pipeline.figures.variants import rows_of, variants_of

ROWS = 6
QUANTITIES = {"1 - cos p": r"$1-\cos(p, q)$", "KL": r"$\mathrm{KL}(p\,\|\,q)$"}
SOURCES: dict[str, tuple[str, LineStyleType]] = {
    "measured": (style.SPACE_COLOURS["p"], "-"),
    "estimate": (style.ESTIMATE_COLOUR, (0, (3, 1.5))),
}


def select(tables: Tables) -> Selection:
    """Measured and estimated `1 - cos(p, q)` and KL per variant and step: mean and quartiles over prompts."""
    rows, temperature = series.at_temperature(tables.protocol("layer"))
    require(rows, ["cos_p", "est_cos_p", "kl", "est_kl"])
    data, place, notes = middle_steps(rows, _values, ROWS)
    names = data["quantity"].str.split(", ", expand=True)
    data = data.assign(quantity=names[0], source=names[1])
    columns = [
        "pruner",
        "sparsity",
        "sublayer",
        "layer",
        "quantity",
        "source",
        "step",
        *series.STATISTICS,
        "n",
    ]
    formulas = (
        "Estimates: Var_r(dz) / 2T^2 with r = p^2 / |p|^2 for the deviation, Var_p(dz) / 2T^2 for KL.",
        f"Temperature {temperature:g}.",
    )
    return Selection(f"Measured change of p and the theorems' estimate ({place})", data[columns], notes + formulas)


def _values(rows: pd.DataFrame) -> dict[str, pd.Series]:
    return {
        "1 - cos p, measured": series.deviation(rows["cos_p"]),
        "1 - cos p, estimate": series.deviation(rows["est_cos_p"]),
        "KL, measured": rows["kl"].clip(lower=0.0),
        "KL, estimate": rows["est_kl"].clip(lower=0.0),
    }


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """A row for each variant; the deviation of p on the left, KL on the right."""
    variants = variants_of(data)
    handles = [canvas.line_handle(source, *look) for source, look in SOURCES.items()]
    sheet, axes = canvas.page(len(variants), 2, title=title, caption=caption, handles=handles, gaps=(0.3, 0.62))
    for row, variant in zip(axes, variants, strict=True):
        own = rows_of(data, [variant])
        for ax, quantity in zip(row, QUANTITIES, strict=True):
            part = own[own["quantity"] == quantity]
            canvas.panel_title(ax, variant.label)
            if part.empty:
                canvas.empty_panel(ax, f"{variant.label}: no finite {quantity}")
                continue
            for source, (colour, line) in SOURCES.items():
                curve = part[part["source"] == source]
                canvas.line_and_band(ax, curve["step"], curve, colour, line)
            scales.decade_axis(ax, data.loc[data["quantity"] == quantity, series.STATISTICS].to_numpy().ravel())
            scales.whole_steps(ax)
    canvas.outer_labels(axes, "generation step", list(QUANTITIES.values()))
    return sheet


FIGURE = Figure(select, draw)
