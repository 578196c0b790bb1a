"""Colours, fonts, sizes, markers and line styles of all figures, defined in one place."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import matplotlib as mpl
import seaborn as sns
from matplotlib.typing import LineStyleType

from pipeline.tables.variants import Variant, ordered

STYLE_VERSION = 2  # raise it when a change here or in canvas.py or scales.py alters what is drawn

WIDTH = 7.0  # inches: the text width of a two-column page
DPI = 200
TEXT_SIZE, SMALL_SIZE, TITLE_SIZE = 8.0, 6.8, 9.5
LINE, THIN = 1.5, 0.7
BAND_ALPHA, FAINT_ALPHA = 0.18, 0.35
INK, GREY = "#222222", "#6f6f6f"

# Okabe and Ito's palette, distinguishable under every common kind of colour blindness.
SPACE_COLOURS = {"h": "#0072B2", "z": "#009E73", "p": "#D55E00"}
SPACE_NAMES = {"h": "embedding h", "z": "logits z", "p": "probabilities p"}
ESTIMATE_COLOUR = INK
# The vocabulary has the colour of p, as it is all of p; the options have another blue of the palette.
SET_COLOURS = {"vocabulary": SPACE_COLOURS["p"], "control": GREY, "options": "#56B4E9"}

# Paul Tol's muted palette: colour-blind safe, too, and distinct from the colours of the spaces.
PRUNER_COLOURS = {
    "dense": INK,
    "shortgpt": "#332288",
    "attn_drop": "#CC6677",
    "mlp_drop": "#DDAA33",
    "joint_drop": "#882255",
    "contiguous": "#88CCEE",
    "magnitude": "#999933",
    "wanda": "#117733",
    "sparsegpt": "#AA4499",
    "divergence": "#44AA99",
    "divergence_blocks": "#44AA99",
    "divergence_estimate": "#6699CC",
    "divergence_estimate_blocks": "#6699CC",
}
SPARE_COLOURS = ("#A65628", "#5E6A71", "#661100", "#BB8899")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
LINE_STYLES: tuple[LineStyleType, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (8, 2)),
    (0, (2, 2)),
)


def pruner_colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each pruner: from `PRUNER_COLOURS` if listed, else a spare one by the name's checksum."""
    return _assign(names, PRUNER_COLOURS, SPARE_COLOURS)


def pruner_markers(names: Iterable[str]) -> dict[str, str]:
    """Return a marker for each pruner, by the same rule as its colour."""
    known = {name: MARKERS[place % len(MARKERS)] for place, name in enumerate(PRUNER_COLOURS)}
    return _assign(names, known, MARKERS)


def line_looks(pruners: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return a colour and a marker for each line, by the name of the line.

    Args:
        pruners: the pruner of each line. Its first line takes its colour and marker, the others spare ones.
    """
    first: dict[str, str] = {}
    for line in sorted(pruners):
        first.setdefault(pruners[line], line)
    keys = {line: pruner if first[pruner] == line else line for line, pruner in pruners.items()}
    colours, markers = pruner_colours(keys.values()), pruner_markers(keys.values())
    return {line: colours[key] for line, key in keys.items()}, {line: markers[key] for line, key in keys.items()}


def line_styles(variants: Iterable[Variant]) -> dict[Variant, LineStyleType]:
    """Return a line style for each variant: solid for a pruner's lowest sparsity shown, broken above it."""
    seen: dict[str, int] = {}
    styles = {}
    for variant in ordered(variants):
        place = seen.setdefault(variant.pruner, 0)
        styles[variant] = LINE_STYLES[place % len(LINE_STYLES)]
        seen[variant.pruner] = place + 1
    return styles


def _assign(names: Iterable[str], known: dict[str, str], spare: tuple[str, ...]) -> dict[str, str]:
    """Assign known names their value, and unknown names the next spare value that no other name has taken."""
    unique = sorted(set(names))
    taken = {name: known[name] for name in unique if name in known}
    for name in unique:
        if name in taken:
            continue
        start = zlib.crc32(name.encode()) % len(spare)
        turns = [spare[(start + step) % len(spare)] for step in range(len(spare))]
        taken[name] = next((choice for choice in turns if choice not in taken.values()), turns[0])
    return {name: taken[name] for name in unique}


@contextmanager
def look() -> Iterator[None]:
    """Draw with this project's style and none of the user's own settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        sns.set_theme(context="paper", style="ticks", font="DejaVu Sans")  # the font that matplotlib ships
        mpl.rcParams.update(
            {
                "font.size": TEXT_SIZE,
                "axes.labelsize": TEXT_SIZE,
                "axes.titlesize": TEXT_SIZE,
                "legend.fontsize": TEXT_SIZE,
                "xtick.labelsize": SMALL_SIZE,
                "ytick.labelsize": SMALL_SIZE,
                "axes.linewidth": 0.7,
                "axes.edgecolor": GREY,
                "xtick.color": GREY,
                "ytick.color": GREY,
                "xtick.labelcolor": INK,
                "ytick.labelcolor": INK,
                "text.color": INK,
                "axes.labelcolor": INK,
                "xtick.major.width": 0.7,
                "ytick.major.width": 0.7,
                "xtick.major.size": 2.5,
                "ytick.major.size": 2.5,
                "lines.linewidth": LINE,
                "lines.solid_capstyle": "round",
                "axes.grid": True,
                "grid.color": "#e6e6e6",
                "grid.linewidth": 0.6,
                "axes.axisbelow": True,
                "text.hinting": "no_hinting",  # text is as wide as measured, at every resolution
                "pdf.fonttype": 42,
                "svg.hashsalt": "figures",
            }
        )
        yield
