"""Layer protocol as heat maps of layer against step, one for each quantity: figures 14 to 21."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, LogNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from pipeline.analysis import series
from pipeline.plot import canvas, scales, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.layer_curves import LayerCurves
from pipeline.tables.read import Tables
from pipeline.tables.variants import variants_of

MARK = "<"  # beside a layer that loses its sublayer
ABSENT, UNDER = "#c9c9c9", "white"  # cells without a finite value, and below the scale
LEAST, OF_LAYER = 1.5, 0.055  # height of a map in inches, and how much of it a further layer takes
MOST = {1: 3.4, 2: 2.5}  # by the number of rows of maps
BAR = 0.05  # width of the colour bar, of that of a map
TAIL, FAR = 0.02, 10.0  # so many of the cells may be off either end of the scale, if they are so many times beyond it


class Scale(NamedTuple):
    """Limits of the colours, and whether cells lie below and above them."""

    low: float
    high: float
    below: bool
    above: bool

    @property
    def ends(self) -> Literal["neither", "min", "max", "both"]:
        """The ends of the colour bar that are arrows."""
        if self.below and self.above:
            return "both"
        return "min" if self.below else "max" if self.above else "neither"

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
    return Figure(partial(select, curves), partial(draw, curves), version=5)


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
    height = np.clip(LEAST + OF_LAYER * (data["layer"].nunique() - 8), LEAST, MOST[len(kinds)])
    scale = scale_of(data["median"])
    colours = sns.color_palette("mako_r", as_cmap=True).with_extremes(bad=ABSENT, under=UNDER)
    sheet, axes = canvas.page(
        len(kinds),
        len(curves.curves) + 1,
        title=title,
        caption=caption,
        handles=_handles(data),
        sharey="row",
        row_height=height,
        width_ratios=[*[1.0] * len(curves.curves), BAR],
    )
    axes, rest = axes[:, :-1], axes[:, -1]
    for row, kind in zip(axes, kinds, strict=True):
        own = data[data["sublayer"] == kind]
        for ax, curve in zip(row, curves.curves, strict=True):
            mesh = _map(ax, own, curve.quantity, LogNorm(scale.low, scale.high), colours)
            canvas.panel_title(ax, f"{series.SUBLAYER_NAMES[kind]}: {curve.label}")
    canvas.outer_labels(axes, "generation step", "layer")
    for ax in rest:
        ax.remove()
    column = axes[0, 0].get_gridspec()[:, -1]
    bar = sheet.colorbar(mesh, cax=sheet.add_subplot(column), extend=scale.ends)
    bar.set_label(f"{curves.label}\nmedian over prompts")
    places, labels = scales.decade_ticks(scale.low, scale.high)
    bar.set_ticks(places, labels=labels)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)
    return sheet


def _handles(data: pd.DataFrame) -> list[Artist]:
    if not data["dropped"].any():
        return []
    (variant,) = variants_of(data)
    return [canvas.line_handle(f"dropped by {variant.label}", style.INK, "", MARK)]


def _map(ax: Axes, own: pd.DataFrame, quantity: str, norm: LogNorm, colours: Colormap) -> QuadMesh:
    """Draw one map, layer 0 at the bottom, with marks at its right edge beside layers that are dropped."""
    layers, steps = np.sort(own["layer"].unique()), np.sort(own["step"].unique())
    part = own[own["quantity"] == quantity]
    cells = part.pivot(index="layer", columns="step", values="median").reindex(index=layers, columns=steps)
    edges = np.arange(len(layers) + 1) - 0.5
    # As an image, cells have no seams between them and the file stays small at many layers and steps.
    mesh = ax.pcolormesh(
        np.append(steps, steps[-1] + 1) - 0.5, edges, np.ma.masked_invalid(cells), norm=norm, cmap=colours,
        rasterized=True,
    )  # fmt: skip
    ax.grid(visible=False)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    # Not every layer need have been measured.
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda place, _: f"{layers[round(place)]:g}" if 0 <= round(place) < len(layers) else "")
    )
    scales.whole_steps(ax)
    gone = np.flatnonzero(np.isin(layers, own.loc[own["dropped"] == 1, "layer"]))
    if len(gone):  # an empty line outside of the axes would count as one in the corner of the page
        size = 4 if len(layers) <= 40 else 2.5
        # Beside the cells, whose colours may be as dark.
        beside = ax.get_yaxis_transform() + ScaledTranslation(0.7 * size / 72, 0, ax.figure.dpi_scale_trans)
        ax.plot(np.full(len(gone), 1.0), gone, MARK, transform=beside, color=style.INK,
                markersize=size, markeredgewidth=0, clip_on=False)  # fmt: skip
    ax.set_ylim(edges[0], edges[-1])
    return mesh
