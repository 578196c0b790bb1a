"""Layer protocol: how well the estimates of theorems 1 to 3 track the measured deviations, over depth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.typing import LineStyleType

from pipeline.analysis import series, theorems
from pipeline.plot import canvas, scales, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.equal_curves import draw_once
from pipeline.plot.layer_profile import panels_of
from pipeline.plot.panel_rows import Column, panel_rows
from pipeline.plot.tiles import Strand, Tiles
from pipeline.plot.variant_notes import listed, not_shown_note
from pipeline.tables.read import Tables, require
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import Variant, lowest, rows_of, variants_of

ROWS = 6
VALUES = {"rank_correlation": "rank correlation", "log2_ratio": r"$\log_2$ ratio"}
CLIP = 3.0  # of the binary logarithm of the ratio: points beyond are drawn at the edge
KL_COLOUR = style.INK
COLOURS = {one.name: style.SPACE_COLOURS[one.space] for one in theorems.THEOREMS} | {theorems.OF_KL.name: KL_COLOUR}
LINES = {one.name: line for one, line in zip(theorems.THEOREMS, style.LINE_STYLES, strict=False)}


def select(tables: Tables) -> Selection:
    """Select rank correlation and median ratio of estimate to measurement per variant, sublayer, theorem and layer."""
    rows, temperature = series.at_temperature(tables.protocol("layer"))
    require(rows, [column for theorem in theorems.THEOREMS for column in theorem.columns])
    everyone = variants_of(rows)
    rows = rows_of(rows, lowest(everyone))
    tracked = theorems.tracking(rows)
    with np.errstate(divide="ignore"):  # an estimate of zero is beyond every edge
        tracked = tracked.assign(log2_ratio=np.log2(tracked.pop("median_ratio")))
    if tracked[list(VALUES)].isna().all(axis=None):
        raise MissingData("the layer protocol shows no deviation for these settings, so there is nothing to track")
    tracked, equal_note = draw_once(tracked, ["theorem", "layer"], list(VALUES))
    panels = panels_of(tracked)
    data = pd.concat([_own(tracked, panel) for panel in panels[:ROWS]], ignore_index=True)
    data = data.rename(columns={"low": "correlation_low", "high": "correlation_high"})
    low, high = theorems.RATIOS
    notes = (
        "One sublayer pruned at a time, on dense inputs; each pruner at its lowest nonzero sparsity, if any.",
        f"Left: Spearman's correlation between measured and estimated deviation over all positions of each layer "
        f"({rows['probe'].nunique()} probe prompts and their steps; {_counts(data['n'])} positions).",
        "Right: binary logarithm of the median over positions of estimate / measured; 0 is a perfect estimate, 1 twice "
        "the measured value.",
        *([f"Triangles: beyond \u00b1{CLIP:g}, drawn at the edge."] if (data["log2_ratio"].abs() > CLIP).any() else []),
        f"Grey: correlations above {theorems.LEAST_CORRELATION:g} on the left, ratios between {low:g} and {high:g} on "
        "the right; the data have the intervals of correlations over prompts.",
        f"Temperature {temperature:g}.",
        *equal_note,
        *_left_out_note(panels[ROWS:]),
        *not_shown_note(variant for variant in everyone if variant not in lowest(everyone)),
    )
    return Selection("Do the theorems' estimates track the measured deviations?", data, notes)


def _counts(counts: pd.Series) -> str:
    least, most = int(counts.min()), int(counts.max())
    return f"{most}" if least == most else f"{least} to {most}"


def _left_out_note(panels: list[tuple[Variant, str]]) -> tuple[str, ...]:
    names = [
        f"{listed(own)} ({name})"
        for sublayer, name in series.SUBLAYER_NAMES.items()
        if (own := [variant for variant, kind in panels if kind == sublayer])
    ]
    return (f"Left out for space: {'; '.join(names)}.",) if names else ()


def _own(tracked: pd.DataFrame, panel: tuple[Variant, str]) -> pd.DataFrame:
    rows = rows_of(tracked, [panel[0]])
    return rows[rows["sublayer"] == panel[1]]


def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each variant and sublayer, with the correlation on the left and the ratio on the right."""
    panels = panels_of(data)
    handles = [canvas.line_handle(f"theorem {name}", colour, LINES[name]) for name, colour in COLOURS.items()]
    parts = [_own(data, panel) for panel in panels]
    empty = {
        len(VALUES) * row + place: f"{panels[row][0].label}: no deviation"
        for row, own in enumerate(parts)
        for place, value in enumerate(VALUES)
        if own[value].isna().all()
    }
    axes = {value: _value_axis(value, data[value]) for value in VALUES}
    page = panel_rows(
        [Column(axes[value], name) for value, name in VALUES.items()],
        [f"{variant.label}: {series.SUBLAYER_NAMES[kind]}" for variant, kind in panels for _ in VALUES],
        data["layer"].to_numpy(),
        xlabel="layer",
        title=title,
        caption=caption,
        handles=handles,
        empty=empty,
        height=_height(len(panels)),
        grid_of="y",
    )
    low, high = np.log2(theorems.RATIOS)
    tracked = {"rank_correlation": (theorems.LEAST_CORRELATION, 1.0), "log2_ratio": (float(low), float(high))}
    for place, value in enumerate(VALUES):
        rows = {len(VALUES) * row + place: own for row, own in enumerate(parts)}
        rows = {panel: own for panel, own in rows.items() if panel not in empty}
        page.belt(list(rows), *tracked[value])
        for theorem, colour in COLOURS.items():
            curves = {panel: own[own["theorem"] == theorem] for panel, own in rows.items()}
            _curves(page, curves, value, colour, LINES[theorem])
    return page.sheet


def _curves(page: Tiles, rows: Mapping[int, pd.DataFrame], value: str, colour: str, line: LineStyleType) -> None:
    """Draw one theorem; ratios beyond the axis are drawn at its edge, with a triangle that points outwards."""
    strands = []
    for panel, curve in rows.items():
        layers, values = curve["layer"].to_numpy(dtype=float), curve[value].to_numpy(dtype=float)
        drawn = values.clip(-CLIP, CLIP) if value == "log2_ratio" else values
        strands.append(Strand(panel, layers, drawn, drawn, drawn))
        for beyond, outwards in ((values > drawn, "^"), (values < drawn, "v")):
            if beyond.any():
                page.points(panel, layers[beyond], drawn[beyond], outwards, colour)
    page.draw(strands, colour, line, style.LINE)


def _height(rows: int) -> float | None:
    return 1.05 if rows > 3 else None


def _value_axis(value: str, values: pd.Series) -> scales.Linear:
    """Return the axis of one quantity, the same in all rows."""
    if value == "rank_correlation":
        lowest_value = min(0.75, float(values.min()))
        room = 0.06 * (1.0 - lowest_value)
        return scales.Linear.of(lowest_value - room, 1.0 + room)
    edge = min(CLIP, max(1.5, float(values.abs().max())))
    return scales.Linear.of(-1.08 * edge, 1.08 * edge)


FIGURE = Figure(select, draw, version=3)
