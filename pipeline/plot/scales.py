"""Axes that span decades and can show an exact zero."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.scale import LogTransform, SymmetricalLogTransform
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

DECADES = 8  # as many as single precision resolves; smaller values are drawn near zero
TICKS = 7  # labels above one another on an axis
AMONG = 5  # of a panel of three rows or more
FEW = 3  # with fewer ticks, a logarithmic axis looks like a linear one
CLOSE = 0.8  # ticks are so much closer rather than fewer
LINEAR = 0.6  # decades that the linear stretch takes
RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
COSINE_NOTE = "The axis of cosines is logarithmic in the distance from 1."


def decade_limits(values: Iterable[float]) -> tuple[float, float, bool]:
    """Return the smallest and the largest value of the axis, and whether zero must be on it.

    Zero and values more than `DECADES` decades below the largest go into a short linear stretch at the bottom.
    """
    finite = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    positive = finite[finite > 0]
    if positive.size == 0:
        return 1e-3, 1.0, True
    floor = float(max(positive.min(), positive.max() * 10.0**-DECADES))
    if (finite < floor).any():  # the linear stretch starts at a power of ten, where its tick is
        return 10.0 ** math.floor(math.log10(floor) + 1e-9), float(positive.max()), True
    return floor, float(positive.max()), False


class Decades(NamedTuple):
    """A logarithmic axis from `bottom` to `top`, linear below `linear` where zero is on it; its ticks and labels.

    An axis of cosines falls: its smallest value, which is closest to a cosine of 1, is at its upper end.
    """

    bottom: float
    top: float
    linear: float | None
    places: list[float]
    labels: list[str]
    falls: bool = False

    @classmethod
    def of(cls, values: Iterable[float], *, cosine: bool = False, ticks: int = TICKS) -> Decades:
        """Return the axis of some values, all >= 0, with at most `ticks` labels; see `decade_axis`."""
        low, high, zero = decade_limits(values)
        top = high * 1.25
        bottom = -0.15 * low if zero else low / 1.25  # a little space keeps a line at zero off the frame
        marks = decade_ticks(low if zero else bottom, top, zero=zero, cosine=cosine, most=ticks)
        return cls(bottom, top, low if zero else None, *marks, falls=cosine)

    def heights(self, values: np.ndarray | Sequence[float]) -> np.ndarray:
        """Return where values lie, from 0 at the lower end of the axis to 1 at its upper end."""
        kind = SymmetricalLogTransform(10, self.linear, LINEAR) if self.linear else LogTransform(10)
        low, high = np.asarray(kind.transform_non_affine(np.array([self.bottom, self.top])), dtype=float)
        heights = np.asarray(kind.transform_non_affine(np.asarray(values, dtype=float)), dtype=float)
        share = np.asarray((heights - low) / (high - low))
        return 1 - share if self.falls else share


class Linear(NamedTuple):
    """An axis from `bottom` to `top`, its ticks and labels."""

    bottom: float
    top: float
    places: list[float]
    labels: list[str]

    @classmethod
    def of(cls, bottom: float, top: float, ticks: int = AMONG) -> Linear:
        """Return the axis between two values, with at most `ticks` labels."""
        found = np.asarray(MaxNLocator(nbins=ticks - 1, steps=[1, 2, 2.5, 5, 10]).tick_values(bottom, top))
        places = found[(bottom <= found) & (found <= top)]
        decimals = next((count for count in range(6) if np.allclose(places, places.round(count), atol=1e-9)), 6)
        labels = [f"{tick + 0.0:.{decimals}f}".replace("-", "\u2212") for tick in places.round(decimals)]
        return cls(bottom, top, [float(tick) for tick in places], labels)

    def heights(self, values: np.ndarray | Sequence[float]) -> np.ndarray:
        """Return where values lie, from 0 at the lower end of the axis to 1 at its upper end."""
        return (np.asarray(values, dtype=float) - self.bottom) / (self.top - self.bottom)


def decade_axis(ax: Axes, values: Iterable[float], *, cosine: bool = False, ticks: int = TICKS) -> None:
    """Make the y axis logarithmic over `values` (all >= 0), with a linear stretch for zero where it occurs.

    With `cosine`, the values are deviations `1 - cos`; the axis is inverted and labelled with the cosine itself:
    1 at the top, ten times farther from 1 with every decade down. At most `ticks` labels fit above one another.
    """
    scale = Decades.of(values, cosine=cosine, ticks=ticks)
    if scale.linear:
        ax.set_yscale("symlog", base=10, linthresh=scale.linear, linscale=LINEAR)
    else:
        ax.set_yscale("log", base=10)
    ax.set_ylim((scale.top, scale.bottom) if cosine else (scale.bottom, scale.top))
    ax.yaxis.set_major_locator(FixedLocator(scale.places))
    ax.yaxis.set_major_formatter(FixedFormatter(scale.labels))
    ax.yaxis.set_minor_locator(NullLocator())


def most_ticks(rows: int) -> int:
    """Return how many labels fit above one another in a panel of a page with so many rows of them."""
    return TICKS if rows < 3 else AMONG


def decade_ticks(
    low: float, top: float, *, zero: bool = False, cosine: bool = False, most: int = TICKS
) -> tuple[list[float], list[str]]:
    """Choose at most `most` ticks of a logarithmic axis from `low` to `top`, about evenly apart, and their labels.

    Args:
        zero: whether a linear stretch for zero lies below `low`, which then has a tick.
        cosine: whether to label deviations with the cosine itself.
    """
    apart = (math.log10(top / low) + LINEAR * zero) / most
    places = [tick for tick in _ticks(low, top, apart) if not zero or LINEAR + math.log10(tick / low) >= apart]
    label = _cosine if cosine else plain
    places = [0.0] * zero + places
    return places, [label(tick) for tick in places]


def signed_axis(ax: Axes, which: Literal["x", "y"], values: Iterable[float], ticks: int = 5) -> None:
    """Make one axis logarithmic over values of either sign, with at most `ticks` ticks on each side of zero."""
    finite = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    low, high, zero = decade_limits(np.abs(finite))
    positive, negative = bool((finite > 0).any()), bool((finite < 0).any())
    set_scale, set_limits = (ax.set_xscale, ax.set_xlim) if which == "x" else (ax.set_yscale, ax.set_ylim)
    axis, top = ax.xaxis if which == "x" else ax.yaxis, high * 1.5
    if zero or negative:
        # Values four decades below the largest are negligible on an axis with zero or both signs.
        low = 10.0 ** math.floor(math.log10(max(low, high * 1e-4)) + 1e-9)
        set_scale("symlog", base=10, linthresh=low, linscale=LINEAR)
        set_limits(-top if negative else -0.3 * low, top if positive or not negative else 0.3 * low)
    else:
        low /= 1.5
        set_scale("log", base=10)
        set_limits(low, top)
    apart = math.log10(top / low) / ticks
    sizes = [
        size for size in _ticks(low, top, apart) if not (zero or negative) or LINEAR + math.log10(size / low) >= apart
    ]
    sizes = sorted(sizes[:: -math.ceil(len(sizes) / ticks)])
    places = [-size for size in reversed(sizes)] * negative + [0.0] * (zero or negative)
    places += sizes * (positive or not negative)
    labels = [plain(size) if size >= 0 else f"\u2212{plain(-size)}" for size in places]
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FixedFormatter(labels))
    axis.set_minor_locator(NullLocator())


def whole_steps(ax: Axes, most: int = TICKS) -> None:
    """Put at most about so many ticks on the x axis, at whole numbers only."""
    ax.xaxis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))


def _ticks(low: float, top: float, apart: float) -> list[float]:
    """Choose round numbers at least `apart` decades from one another: the finest set, or powers of ten at a stride."""
    first, last = math.floor(math.log10(low)), math.floor(math.log10(top))
    sets: list[list[float]] = []
    for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 4, 7), (1, 2, 5), (1, 3), (1,)):
        fine = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in digits]
        sets.append([tick for tick in fine if low <= tick * (1 + 1e-9) and tick <= top])
    # The finest sets are for axes on which the next has too few to see that they are logarithmic.
    sets = sets if len(sets[2]) < FEW else sets[2:]
    for least, spacing in ((FEW, apart), (FEW, CLOSE * apart), (2, apart)):
        for inside in sets:
            if len(inside) >= least and np.diff(np.log10(inside)).min() >= spacing:
                return inside
    stride = max(1, math.ceil(apart))
    powers = [float(f"1e{power}") for power in range(last, first - 1, -stride)]
    inside = [tick for tick in powers if low <= tick * (1 + 1e-9)]
    if len(inside) > 1:
        return sorted(inside)
    # Where all values are nearly the same, at most one of these lies among them.
    even = [float(f"{tick:.1e}") for tick in MaxNLocator(3).tick_values(low, top) if low <= tick <= top]
    return even or [float(f"{math.sqrt(low * top):.1e}")]


def plain(value: float) -> str:
    """Format a positive value or zero as a label of an axis."""
    return f"{value:g}" if value == 0 or value >= 1e-3 else _scientific(value)


def _cosine(deviation: float) -> str:
    """Format the cosine at a deviation from 1, with as many decimals as the decade of the deviation needs."""
    if deviation == 0:
        return "1"
    digits, power = f"{deviation:.1e}".split("e")
    places = max(0, -int(power)) + (not digits.endswith(".0"))
    return f"{1 - deviation:.{places}f}" if places <= 4 else f"1\u2212{_scientific(deviation)}"


def _scientific(value: float) -> str:
    """Format a value as digits and a power of ten, in plain text: formulas take twenty times as long to lay out."""
    digits, power = f"{value:.1e}".split("e")
    digit = digits.removesuffix(".0")
    factor = "" if digit == "1" else f"{digit}\u00b7"
    return f"{factor}10{str(int(power)).translate(RAISED)}"
