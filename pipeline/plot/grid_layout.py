"""Layout of the panels of a page: as large as the labels around them leave room for.

Matplotlib's constrained layout finds the same places, but measures every label several times on the way and again
whenever the page is drawn, which takes longer than drawing. Panels in a grid need sums, and one measurement, or
two of those whose ticks depend on their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import LayoutEngine
from matplotlib.ticker import AutoLocator
from matplotlib.transforms import Bbox, ScaledTranslation

from pipeline.plot import style

GAP = 0.1  # inches between panels with their labels
TICK = 0.08  # inches that half a number needs beyond the end of an axis
SIDES = ("left", "bottom", "right", "top")


@dataclass(frozen=True)
class _Panel:
    """One panel: its rows and columns, how far its labels reach beyond it, and where those of its axes are, inches."""

    ax: Axes
    rows: range
    columns: range
    beyond: dict[str, float]
    labels: dict[str, float]


def raster(fig: Canvas) -> FigureCanvasAgg:
    """Return the canvas on which a figure is measured and drawn as pixels: one, as it knows the texts it measured."""
    return fig.canvas if type(fig.canvas) is FigureCanvasAgg else FigureCanvasAgg(fig)


class GridLayout(LayoutEngine):
    """Puts the panels of one grid into a rectangle; labels beside or below one another are in line."""

    _adjust_compatible = False
    _colorbar_gridspec = False

    def __init__(self, left: float, bottom: float, width: float, height: float) -> None:
        """Take the rectangle in inches."""
        super().__init__()
        self._corner, self._size = (left, bottom), (width, height)

    def execute(self, fig: Canvas) -> None:
        """Measure the labels, place the panels, and fix the labels of their axes."""
        renderer = raster(fig).get_renderer()
        axes = [ax for ax in fig.axes if ax.get_subplotspec() is not None]
        if not axes:
            return
        panels = [_measured(ax, fig, renderer) for ax in axes]
        self._place(panels, fig)
        if any(map(_adapts, axes)):
            panels = [_measured(panel.ax, fig, renderer) if _adapts(panel.ax) else panel for panel in panels]
            self._place(panels, fig)
        _fix_labels(panels, fig)

    def _place(self, panels: Sequence[_Panel], fig: Canvas) -> None:
        grid = panels[0].ax.get_subplotspec().get_gridspec()  # type: ignore[union-attr]
        across = _spread(
            self._size[0], _ratios(grid.get_width_ratios(), grid.ncols),
            [(panel.columns, panel.beyond["left"], panel.beyond["right"]) for panel in panels],
        )  # fmt: skip
        down = _spread(
            self._size[1], _ratios(grid.get_height_ratios(), grid.nrows),
            [(panel.rows, panel.beyond["top"], panel.beyond["bottom"]) for panel in panels],
        )  # fmt: skip
        width, height = fig.get_size_inches()
        for panel in panels:
            left, right = (self._corner[0] + x for x in (across[panel.columns[0]][0], across[panel.columns[-1]][1]))
            top, bottom = (
                self._corner[1] + self._size[1] - y for y in (down[panel.rows[0]][0], down[panel.rows[-1]][1])
            )
            panel.ax.set_position(Bbox([[left / width, bottom / height], [right / width, top / height]]))


def _adapts(ax: Axes) -> bool:
    """Return whether a panel has more ticks, and wider labels, where it is larger."""
    return any(isinstance(axis.get_major_locator(), AutoLocator) for axis in (ax.xaxis, ax.yaxis))


def _measured(ax: Axes, fig: Canvas, renderer: Any) -> _Panel:
    """Measure a panel where it is; unless it adapts, its labels reach as far wherever it will be."""
    spec, dpi = ax.get_subplotspec(), fig.dpi
    assert spec is not None
    own = ax.get_position(original=True).transformed(fig.transFigure)
    box = ax.get_tightbbox(renderer, for_layout_only=True) or own
    beyond = dict(zip(SIDES, (own.x0 - box.x0, own.y0 - box.y0, box.x1 - own.x1, box.y1 - own.y1), strict=True))
    if isinstance(ax.xaxis.get_major_locator(), AutoLocator):
        # In its place, it may have a tick at its end.
        beyond["right"] = max(beyond["right"], TICK * dpi)
    labels: dict[str, float] = {}
    for axis in (ax.xaxis, ax.yaxis):
        if ax.axison and axis.label.get_text():
            side = axis.get_label_position()
            x, y = axis.label.get_position()
            at = {"left": own.x0 - x, "right": x - own.x1, "bottom": own.y0 - y, "top": y - own.y1}
            labels[side] = at[side] / dpi
    spans = range(spec.rowspan.start, spec.rowspan.stop), range(spec.colspan.start, spec.colspan.stop)
    return _Panel(ax, *spans, {side: max(0.0, reach) / dpi for side, reach in beyond.items()}, labels)


def _ratios(given: Any, count: int) -> np.ndarray:
    ratios = np.ones(count) if given is None else np.asarray(given, dtype=float)
    return ratios / ratios.sum()


def _spread(
    length: float, ratios: np.ndarray, panels: Sequence[tuple[range, float, float]]
) -> list[tuple[float, float]]:
    """Return start and end of each row or column of panels that reach so far before and after those they span."""
    before, after = np.zeros(len(ratios)), np.zeros(len(ratios))
    for places, first, last in panels:
        before[places[0]] = max(before[places[0]], first)
        after[places[-1]] = max(after[places[-1]], last)
    spaces = before.sum() + after.sum() + GAP * (len(ratios) - 1) + 2 * style.EDGE
    sizes = ratios * max(length - spaces, 0.1 * length)
    ends: list[tuple[float, float]] = []
    at = style.EDGE
    for size, first, last in zip(sizes, before, after, strict=True):
        ends.append((float(at + first), float(at + first + size)))
        at += first + size + last + GAP
    return ends


def _fix_labels(panels: Sequence[_Panel], fig: Canvas) -> None:
    """Fix the labels of axes, those of a column or a row in line: matplotlib would look for them at each drawing."""
    places: dict[str, Callable[[_Panel], int]] = {
        "left": lambda panel: panel.columns[0],
        "right": lambda panel: panel.columns[-1],
        "bottom": lambda panel: panel.rows[-1],
        "top": lambda panel: panel.rows[0],
    }
    for side, place in places.items():
        furthest: dict[int, float] = {}
        for panel in panels:
            if side in panel.labels:
                furthest[place(panel)] = max(furthest.get(place(panel), 0.0), panel.labels[side])
        for panel in panels:
            if side in panel.labels:
                _fix(panel.ax, side, furthest[place(panel)], fig)


def _fix(ax: Axes, side: str, away: float, fig: Canvas) -> None:
    """Put the label of an axis so many inches away from a side of its panel."""
    axis: Axis = ax.xaxis if side in ("bottom", "top") else ax.yaxis
    along = axis.label.get_position()[0 if axis is ax.xaxis else 1]
    shift = {"left": (-away, 0), "right": (away, 0), "bottom": (0, -away), "top": (0, away)}[side]
    start = {"left": (0, along), "right": (1, along), "bottom": (along, 0), "top": (along, 1)}[side]
    transform = ax.transAxes + ScaledTranslation(*shift, fig.dpi_scale_trans)
    axis.set_label_coords(*start, transform=transform)
