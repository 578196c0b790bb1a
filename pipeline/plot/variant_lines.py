"""Lines of several variants in one panel, told apart by colour, marker and dash."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from pipeline.plot import canvas, style
from pipeline.tables.variants import Variant, rows_of

MARKS = 4  # markers on a line of many points
MARKER_SIZE = 4.5


def handles(variants: Sequence[Variant]) -> list[Artist]:
    """Return a legend entry for each variant, and those that say what line and band are."""
    names = [variant.pruner for variant in variants]
    colours, markers, lines = style.pruner_colours(names), style.pruner_markers(names), style.line_styles(variants)
    entries = [
        canvas.line_handle(variant.label, colours[variant.pruner], lines[variant], markers[variant.pruner])
        for variant in variants
    ]
    return [*entries, *canvas.statistic_handles()]


def draw(ax: Axes, rows: pd.DataFrame, variants: Sequence[Variant]) -> None:
    """Draw median and quartiles of each variant over steps, with its pruner's marker at a few places.

    Args:
        rows: columns pruner, sparsity, options, step, median, low, high.
        variants: all variants of the page, each of which has the same look in all panels.
    """
    names = [variant.pruner for variant in variants]
    colours, markers, lines = style.pruner_colours(names), style.pruner_markers(names), style.line_styles(variants)
    for place, variant in enumerate(variants):
        curve = rows_of(rows, [variant])
        canvas.line_and_band(ax, curve["step"], curve, colours[variant.pruner], lines[variant], len(variants))
        stride = max(1, math.ceil(len(curve) / MARKS))
        # Markers of lines that lie on one another stand beside one another.
        ax.lines[-1].set(
            marker=markers[variant.pruner],
            markersize=MARKER_SIZE,
            markeredgewidth=0.4,
            markeredgecolor="white",
            markevery=(place * stride // len(variants), stride),
        )
