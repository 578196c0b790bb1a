"""What figures 14 to 21 show of the layer protocol in every layer and at every step, as a map or as small panels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.typing import LineStyleType

from pipeline.analysis import series
from pipeline.analysis.theorems import OF_KL, Theorem
from pipeline.plot import style
from pipeline.plot.single_variant import single_variant
from pipeline.plot.variant_notes import not_shown_note
from pipeline.tables.read import Tables, require
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, Variant, variants_of

ESTIMATE_LINE = (0, (3, 1.5))
KEYS = [*VARIANT, "sublayer", "layer"]
# Columns that tell positions apart, and the one that tells whether a variant changes anything.
CHOSEN = [*KEYS, "step", "prompt", "probe", "temperature", "orth_h"]
# The abbreviation of |orthogonal part of dx|^2 / |x|^2 in captions.
ORTHOGONAL = "orth = |orthogonal part of dx|^2 / |x|^2."


@dataclass(frozen=True)
class Curve:
    """One quantity: its names in tables and legend, its look as a line, and its value at each position.

    A position whose value is not finite is left out.
    """

    quantity: str
    label: str
    colour: str
    values: Callable[[pd.DataFrame], pd.Series]
    line: LineStyleType = "-"
    width: float = style.LINE


class Chosen(NamedTuple):
    """Rows of the one variant of a figure, in all sublayers that it prunes, and the notes on what was chosen."""

    rows: pd.DataFrame
    variant: Variant
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LayerCurves:
    """The quantities of one figure.

    Attributes:
        title: title of the figure.
        label: label of the axis that all quantities share.
        columns: columns of the measures that the curves need.
        curves: the quantities.
        note: a sentence of the caption on what is drawn.
        gap: why positions are left out, for curves that leave some out.
    """

    title: str
    label: str
    columns: Sequence[str]
    curves: Sequence[Curve]
    note: str
    gap: str = "because they are not finite"

    def choose(self, tables: Tables) -> Chosen:
        """Choose the rows of one variant at one temperature, at the steps that at least half of its prompts reach.

        Raises:
            MissingData: if a column that the curves need is missing.
        """
        rows = tables.protocol("layer")
        require(rows, self.columns)
        # Choosing rows of all columns would take longer than all that is computed of these.
        rows, temperature = series.at_temperature(rows[[name for name in rows if name in {*CHOSEN, *self.columns}]])
        others = variants_of(rows)
        rows, variant = single_variant(tables, rows)
        reached = rows.groupby("step")["prompt"].nunique()
        rows = rows[rows["step"].isin(reached.index[2 * reached >= reached.max()])]
        notes = (
            self.note,
            f"Temperature {temperature:g}.",
            *not_shown_note(other for other in others if other != variant),
        )
        return Chosen(rows, variant, notes)

    def profile(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """Compute median and quartiles over prompts per sublayer, layer, quantity and step.

        Returns:
            Columns pruner, sparsity, options, sublayer, layer, quantity, step, median, low, high, n; and the notes on
            positions that are left out.

        Raises:
            MissingData: if no position has a value.
        """
        values = {curve.quantity: curve.values(rows).replace([np.inf, -np.inf], np.nan) for curve in self.curves}
        if all(column.isna().all() for column in values.values()):
            raise MissingData(f"no position has a value to draw, {self.gap}")
        data = series.profile(rows, [*KEYS, "step"], values)
        data = data.sort_values(["sublayer", "layer", "quantity", "step"], kind="stable")
        return data[[*KEYS, "quantity", "step", *series.STATISTICS, "n"]], self._gaps(rows, values)

    def _gaps(self, rows: pd.DataFrame, values: dict[str, pd.Series]) -> tuple[str, ...]:
        """Return notes on how many positions are left out, and on the layers that have none left."""
        counts = {name: int(column.isna().sum()) for name, column in values.items()}
        parts = [f"{count} of {len(rows)} positions of {name}" for name, count in counts.items() if count]
        notes = [f"Left out, {self.gap}: {'; '.join(parts)}."] if parts else []
        present = pd.concat(values, axis=1).notna().any(axis=1).groupby(rows["layer"]).any()
        lost = [str(layer) for layer in present.index[~present]]
        return (*notes, *([f"Not drawn, because no finite values: layer {', '.join(lost)}."] if lost else []))


def measured_and_estimate(title: str, theorem: Theorem) -> LayerCurves:
    """Return what the figure of one theorem shows: the measured deviation and its estimate."""
    unit = " In nats." if theorem is OF_KL else ""
    curves = (
        Curve("measured", "measured", style.SPACE_COLOURS[theorem.space], theorem.measured, width=style.UNDER),
        Curve("estimate", "estimate", style.ESTIMATE_COLOUR, theorem.estimated, ESTIMATE_LINE, style.OVER),
    )
    note = f"Estimate of theorem {theorem.name}: {theorem.estimate}.{unit}"
    return LayerCurves(title, theorem.symbol, theorem.columns, curves, note)


def over_orthogonal(title: str, variance: str, symbol: str, note: str) -> LayerCurves:
    """Return what the figure of a variance of dz over the relative orthogonal magnitudes of h and of z shows."""

    def curve(space: str) -> Curve:
        def ratio(rows: pd.DataFrame) -> pd.Series:
            below = rows[f"orth_{space}"].astype(float)
            return rows[variance].astype(float).clip(lower=0.0) / below.where(below > 0)

        return Curve(
            f"{variance} / orth_{space}", f"over the orthogonal part of {space}", style.SPACE_COLOURS[space], ratio
        )

    curves = tuple(curve(space) for space in ("h", "z"))
    label = rf"{symbol} $\,/\,(\|\Delta x_\perp\|^2/\|x\|^2)$"
    gap = "because the change has no orthogonal part there"
    columns = [variance, "orth_h", "orth_z"]
    return LayerCurves(title, label, columns, curves, f"{note} {ORTHOGONAL}", gap)
