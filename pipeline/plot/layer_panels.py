"""Layer protocol over steps, a small panel for each layer: the shared part of figures 14 to 21."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.typing import LineStyleType

from pipeline.analysis import series
from pipeline.analysis.theorems import OF_KL, Theorem
from pipeline.plot import canvas, scales, small_panels, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.single_variant import single_variant
from pipeline.tables.read import Tables, require
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, not_shown_note, variants_of

MOST = 36  # panels on a page
ESTIMATE_LINE = (0, (3, 1.5))
KEYS = [*VARIANT, "sublayer", "layer"]
# The abbreviation of |orthogonal part of dx|^2 / |x|^2 in captions.
ORTHOGONAL = "orth = |orthogonal part of dx|^2 / |x|^2."


@dataclass(frozen=True)
class Curve:
    """One line of every panel: its names in tables and legend, its look, and its value at each position.

    A position whose value is not finite is left out.
    """

    quantity: str
    label: str
    colour: str
    values: Callable[[pd.DataFrame], pd.Series]
    line: LineStyleType = "-"


@dataclass(frozen=True)
class LayerPanels:
    """One figure with a panel for each layer.

    Attributes:
        title: title of the figure; the sublayer is appended.
        ylabel: label of the y axis, shared by all panels.
        columns: columns of the measures that the curves need.
        curves: the lines of every panel.
        note: a sentence of the caption on what is drawn.
        gap: why positions are left out, for curves that leave some out.
    """

    title: str
    ylabel: str
    columns: Sequence[str]
    curves: Sequence[Curve]
    note: str
    gap: str = "because they are not finite"

    def select(self, tables: Tables) -> Selection:
        """Select each curve of one variant and sublayer, per layer and step: its line and quartiles over prompts."""
        rows, temperature = series.at_temperature(tables.protocol("layer"))
        require(rows, self.columns)
        others = variants_of(rows)
        rows, variant, sublayer = single_variant(tables, rows)
        rows, sampling_note = _layers_shown(_steps_reached(rows))
        values = {curve.quantity: curve.values(rows).replace([np.inf, -np.inf], np.nan) for curve in self.curves}
        if all(column.isna().all() for column in values.values()):
            raise MissingData(f"no position has a value to draw, {self.gap}")
        data = series.profile(rows, [*KEYS, "step"], values)
        data = data.sort_values(["layer", "quantity", "step"], kind="stable")
        name = series.SUBLAYER_NAMES[sublayer]
        notes = (
            f"{variant.label}, pruning the {name} of one layer at a time, on dense inputs.",
            self.note,
            series.STEP_NOTE,
            "All panels share their axes.",
            f"Temperature {temperature:g}.",
            *not_shown_note(other for other in others if other != variant),
            *sampling_note,
            *self._gaps(rows, values),
        )
        columns = [*KEYS, "quantity", "step", *series.STATISTICS, "n"]
        return Selection(f"{self.title} ({name})", data[columns], notes)

    def _gaps(self, rows: pd.DataFrame, values: dict[str, pd.Series]) -> tuple[str, ...]:
        """Return notes on how many positions are left out, and on the layers that have none left."""
        counts = {name: int(column.isna().sum()) for name, column in values.items()}
        parts = [f"{count} of {len(rows)} positions of {name}" for name, count in counts.items() if count]
        notes = [f"Left out, {self.gap}: {'; '.join(parts)}."] if parts else []
        present = pd.concat(values, axis=1).notna().any(axis=1).groupby(rows["layer"]).any()
        lost = [str(layer) for layer in present.index[~present]]
        return (*notes, *([f"No panel, because no finite values: layer {', '.join(lost)}."] if lost else []))

    def draw(self, data: pd.DataFrame, title: str, caption: str) -> Canvas:
        """Draw a panel for each layer, in reading order."""
        layers = sorted(data["layer"].unique())
        handles = [canvas.line_handle(curve.label, curve.colour, curve.line) for curve in self.curves]
        handles += canvas.statistic_handles()
        sheet, axes, panels = small_panels.grid(len(layers), title=title, caption=caption, handles=handles)
        everything = data[series.STATISTICS].to_numpy().ravel()
        for ax, layer in zip(panels, layers, strict=True):
            own = data[data["layer"] == layer]
            for curve in self.curves:
                part = own[own["quantity"] == curve.quantity]
                canvas.line_and_band(ax, part["step"], part, curve.colour, curve.line)
            scales.decade_axis(ax, everything)
            canvas.panel_title(ax, f"layer {layer:g}")
        small_panels.few_steps(panels)
        small_panels.few_decades(panels)
        small_panels.finish(sheet, axes, "generation step", self.ylabel)
        return sheet

    def figure(self) -> Figure:
        return Figure(self.select, self.draw)


def measured_and_estimate(title: str, theorem: Theorem) -> Figure:
    """Return the figure of one theorem: the measured deviation and its estimate."""
    unit = " In nats." if theorem is OF_KL else ""
    curves = (
        Curve("measured", "measured", style.SPACE_COLOURS[theorem.space], theorem.measured),
        Curve("estimate", "estimate", style.ESTIMATE_COLOUR, theorem.estimated, ESTIMATE_LINE),
    )
    note = f"Estimate of theorem {theorem.name}: {theorem.estimate}.{unit}"
    return LayerPanels(title, theorem.symbol, theorem.columns, curves, note).figure()


def over_orthogonal(title: str, variance: str, symbol: str, note: str) -> Figure:
    """Return the figure of a variance of dz divided by the relative orthogonal magnitudes of h and of z."""

    def curve(space: str) -> Curve:
        def ratio(rows: pd.DataFrame) -> pd.Series:
            below = rows[f"orth_{space}"].astype(float)
            return rows[variance].astype(float).clip(lower=0.0) / below.where(below > 0)

        label = f"over the orthogonal part of {style.SPACE_NAMES[space]}"
        return Curve(f"{variance} / orth_{space}", label, style.SPACE_COLOURS[space], ratio)

    curves = tuple(curve(space) for space in ("h", "z"))
    ylabel = rf"{symbol} $\,/\,(\|\Delta x_\perp\|^2/\|x\|^2)$"
    gap = "because the change has no orthogonal part there"
    columns = [variance, "orth_h", "orth_z"]
    return LayerPanels(title, ylabel, columns, curves, f"{note} {ORTHOGONAL}", gap).figure()


def _steps_reached(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the steps that at least half of the prompts reach: later medians are over ever fewer prompts."""
    reached = rows.groupby("step")["prompt"].nunique()
    return rows[rows["step"].isin(reached.index[2 * reached >= reached.max()])]


def _layers_shown(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows of all layers, or of evenly spaced ones with a note if a page has no room for all."""
    layers = np.sort(rows["layer"].unique())
    if len(layers) <= MOST:
        return rows, ()
    shown = layers[np.linspace(0, len(layers) - 1, MOST).round().astype(int)]
    return rows[rows["layer"].isin(shown)], (f"{MOST} of {len(layers)} layers, evenly spaced.",)
