"""Short labels beside points, each on a side of its point where it covers neither other labels nor points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Bbox

from pipeline.plot import style

HALO = withStroke(linewidth=2, foreground="white")
REACH = 4.0  # points from the middle of a marker to the nearest edge of its label
CROWD = 12  # so many labels of a panel may say the same beside points that touch
LEADING = 1.7  # points above and below a label that another one keeps clear of
HAIR = 0.5  # square points of another label or point that a label may cover
MARKER = 3.0  # points from the middle of a marker to its edge
# Where a label may lie, best first: directions from the point (right, up).
SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 2), (0, -2), (2, 0), (-2, 0), (1, 3), (-1, 3), (1, -3), (-1, -3))


class PointLabel(NamedTuple):
    """Label of the point (x, y), in data coordinates."""

    x: float
    y: float
    text: str
    colour: str


def place_labels(ax: Axes, labels: Sequence[PointLabel], points: Sequence[tuple[float, float]] = ()) -> None:
    """Write the labels beside their points, except those without room. Limits and position of `ax` must be final.

    Args:
        points: markers without a label that labels should not cover either, in data coordinates.
    """
    scale = 72.0 / ax.figure.dpi

    def spot(x: float, y: float) -> tuple[float, float]:
        across, up = ax.transData.transform((x, y)) * scale
        return float(across), float(up)

    frame = Bbox(ax.bbox.get_points() * scale)
    markers = [spot(x, y) for x, y in [*((label.x, label.y) for label in labels), *points]]
    taken = [Bbox.from_extents(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in markers]
    font = FontProperties(size=style.SMALL_SIZE)
    written: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        x, y = markers[place]
        if len(labels) > CROWD and any(_is_near(markers[other], (x, y)) for other in written.get(label.text, ())):
            continue
        width, height, _ = text_to_path.get_text_width_height_descent(label.text, font, ismath=False)
        boxes = [_beside(x, y, width, height, side) for side in SIDES]
        best = min(boxes, key=lambda box: _cost(box, taken, frame))
        if _cost(best, taken, frame) > HAIR:
            continue
        taken.append(best.padded(0.0, LEADING))
        written.setdefault(label.text, []).append(place)
        ax.annotate(
            label.text, (label.x, label.y), xytext=(best.x0 - x, best.y0 - y), textcoords="offset points",
            size=style.SMALL_SIZE, color=label.colour, path_effects=[HALO], zorder=6,
        )  # fmt: skip


def _is_near(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether the markers at two places, in points, touch."""
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= 2 * MARKER


def _beside(x: float, y: float, width: float, height: float, side: tuple[int, int]) -> Bbox:
    """Return the box of a label on one side of a point, in points.

    Two steps up or down are for a centred label; three steps leave room for another label in between.
    """
    right, up = side
    left = {0: x - width / 2, 1: x + REACH, 2: x + REACH, -1: x - REACH - width, -2: x - REACH - width}[right]
    rise = {0: -height / 2, 1: REACH, 2: REACH + 1, 3: REACH + height + LEADING + 0.5}
    bottom = y + rise[up] if up >= 0 else y - rise[-up] - height
    return Bbox.from_bounds(left, bottom, width, height)


def _cost(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Compute the area of a box that others take or that is outside the axes, in square points."""
    return sum(_overlap(box, other) for other in taken) + _outside(box, frame)


def _overlap(one: Bbox, other: Bbox) -> float:
    """Compute the area that two boxes share, in square points."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    up = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, across) * max(0.0, up)


def _outside(box: Bbox, frame: Bbox) -> float:
    """Compute the area of a box that lies outside the axes, in square points."""
    return box.width * box.height - _overlap(box, frame)
