"""Layer protocol as heat maps of layer against step, one for each quantity: figures 14 to 21."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import series
from pipeline.plot import canvas, scales, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.layer_curves import LayerCurves
from pipeline.plot.map_page import Bar, colours, draw_cells, map_page
from pipeline.plot.tiles import Tiles
from pipeline.tables.read import Tables
from pipeline.tables.variants import variants_of

MARK = "<"  # beside a layer that loses its sublayer
TAIL, FAR = 0.02, 10.0  # so many of the cells may be off either end of the scale, if they are so many times beyond it


class Scale(NamedTuple):
    """Limits of the colours, and whether cells lie below and above them."""

    low: float
    high: float
    below: bool
    above: bool

    def notes(self) -> list[str]:
        """Return sentences on what the colours leave out."""
        return [
            *([f"White: below {_rounded(self.low)}, or zero."] if self.below else []),
            *([f"Darkest: {_rounded(self.high)} and above."] if self.above else []),
        ]


def _rounded(value: float) -> str:
    return scales.plain(float(f"{value:.1g}"))


def figure(curves: LayerCurves) -> Figure:
    """Return the figure with a heat map for each quantity."""
    return Figure(partial(select, curves), partial(draw, curves), version=6)


def select(curves: LayerCurves, tables: Tables) -> Selection:
    """Select the median of each quantity over prompts per pruned sublayer, layer and step, and the dropped layers."""
    rows, variant, notes = curves.choose(tables)
    data, gaps = curves.profile(rows)
    kinds = [kind for kind in series.SUBLAYER_NAMES if (data["sublayer"] == kind).any()]
    dropped = {kind: tables.dropped(variant, kind) for kind in kinds}
    data = data.assign(
        dropped=[int(layer in dropped[kind]) for kind, layer in zip(data["sublayer"], data["layer"], strict=True)]
    )
    names = " or the ".join(series.SUBLAYER_NAMES[kind] for kind in kinds)
    notes = (
        f"{variant.label}, pruning the {names} of one layer at a time, on dense inputs.",
        f"Each cell: median over {rows['probe'].nunique()} probe prompts; only steps that at least half of them reach.",
        *scale_of(data["median"]).notes(),
        *(["Grey: no finite value."] if _has_holes(data, curves) else []),
        *(["Triangles: layers that this variant drops."] if data["dropped"].any() else []),
        *notes,
        *gaps,
    )
    return Selection(curves.title, data.drop(columns=series.STATISTICS[1:]), notes)


def scale_of(values: pd.Series) -> Scale:
    """Choose the limits of the colours: a few cells far from all others would take most of them."""
    positive = values[np.isfinite(values) & (values > 0)]
    first, last = positive.quantile([TAIL, 1 - TAIL]) if len(positive) else (0.0, np.inf)
    above = bool(len(positive) and positive.max() > FAR * last)
    # The decades below are those below what the scale ends at.
    low, high, zero = scales.decade_limits(values.clip(upper=last) if above else values)
    low, high = (low, high) if zero else (low / 1.25, high if above else high * 1.25)
    below = first > FAR * low
    return Scale(float(first) if below else low, high, bool(below or zero), above)


def _has_holes(data: pd.DataFrame, curves: LayerCurves) -> bool:
    """Return whether a map has cells without a value."""
    shapes = data.groupby("sublayer")[["layer", "step"]].nunique().prod(axis=1)
    return len(data) < shapes.sum() * len(curves.curves)


def draw(curves: LayerCurves, data: pd.DataFrame, title: str, caption: str) -> Canvas:
    """Draw a row for each sublayer, a map for each quantity, and the one colour bar of all maps."""
    kinds = [kind for kind in series.SUBLAYER_NAMES if (data["sublayer"] == kind).any()]
    scale = scale_of(data["median"])
    bar = Bar(LogNorm(scale.low, scale.high), colours(), scale.above, f"{curves.label}\nmedian over prompts")
    look: dict[str, Any] = {"title": title, "caption": caption, "handles": _handles(data)}
    page, places = map_page(len(kinds), len(curves.curves), data, bar, **look)
    for place, (kind, curve) in enumerate(itertools.product(kinds, curves.curves)):
        own = data[data["sublayer"] == kind]
        page.title(place, f"{series.SUBLAYER_NAMES[kind]}: {curve.label}")
        part = own[own["quantity"] == curve.quantity]
        draw_cells(page, place, part, bar, places)
        _marks(page, place, own, places)
    return page.sheet


def _handles(data: pd.DataFrame) -> list[Artist]:
    if not data["dropped"].any():
        return []
    (variant,) = variants_of(data)
    return [canvas.line_handle(f"dropped by {variant.label}", style.INK, "", MARK)]


def _marks(page: Tiles, panel: int, own: pd.DataFrame, layers: np.ndarray) -> None:
    """Mark layers that are dropped beside the right edge of their map, whose cells may be as dark."""
    gone = np.flatnonzero(np.isin(layers, own.loc[own["dropped"] == 1, "layer"]))
    if len(gone):
        size = 4 if len(layers) <= 40 else 2.5
        left, bottom = page.places[panel]
        beside = np.full(len(gone), left + page.size[0] + 0.7 * size / 72)
        look: dict[str, Any] = {"color": style.INK, "markersize": size, "markeredgewidth": 0}
        page.ax.plot(beside, bottom + page.up(panel, gone), MARK, **look)
