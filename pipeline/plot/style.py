"""Colours, fonts, sizes, markers and line styles of all figures, defined in one place."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.typing import LineStyleType

from pipeline.config.figures import by_default
from pipeline.config.schema import PAPER, FiguresConfig
from pipeline.plot.base import Span
from pipeline.plot.letters import FONT
from pipeline.tables.variants import DENSE, Variant, ordered

STYLE_VERSION = 8  # raise it when a change here or in what all figures are drawn with alters them

DPI = 200
EDGE = 0.08  # inches between the text and the left and right edge of the page
TEXT_SIZE, SMALL_SIZE, TITLE_SIZE = 8.0, 6.8, 9.5
LINE, THIN = 1.5, 0.7
UNDER, OVER = 2.6, 0.9  # points: of a line, and of one that lies over it and must not hide it
BAND_ALPHA, FAINT_ALPHA = 0.18, 0.35
INK, GREY = "#222222", "#6f6f6f"

# Okabe and Ito's palette, distinguishable under every common kind of colour blindness.
SPACE_COLOURS = {"h": "#0072B2", "z": "#009E73", "p": "#D55E00"}
SPACE_NAMES = {"h": "embedding h", "z": "logits z", "p": "probabilities p"}
ESTIMATE_COLOUR = INK
# The vocabulary has the colour of p, as it is all of p; the options have another blue of the palette.
SET_COLOURS = {"vocabulary": SPACE_COLOURS["p"], "control": GREY, "options": "#56B4E9"}

# Found by a search for colours that are far from one another and from those of the spaces, also without green cones.
PALETTE = (
    "#E11EA5", "#690F0F", "#1E695A", "#FF87F0", "#3C3C5A", "#9687FF", "#F0A569", "#2D0FB4", "#1E781E", "#5AD2B4",
)  # fmt: skip
# Pruners of one kind share a colour, and have a marker each: place in the palette -> pruners by marker. There are more
# kinds than colours, so some share a colour with another kind.
_KINDS: tuple[dict[str, str], ...] = (
    {"o": "attn_drop", "s": "iterative_attn_drop", "D": "random_attn"},
    {
        **{"o": "shortgpt", "s": "iterative_blocks", "^": "contiguous", "D": "random_blocks"},
        **{"p": "perplexity", "d": "perplexity_mlp", "v": "perplexity_blocks", "8": "perplexity_joint"},
    },
    {"o": "wanda", "v": "wanda_divergence", "s": "wanda_owl", "^": "wanda_alpha_pruning", "D": "ria", "p": "dsnot"},
    {
        **{"o": "joint_drop", "s": "iterative_joint_drop"},
        **{"p": "evolution", "d": "evolution_mlp", "v": "evolution_blocks", "8": "evolution_joint"},
    },
    {"o": "magnitude", "v": "magnitude_divergence", "D": "random_weights"},
    {"o": "sparsegpt", "v": "sparsegpt_divergence"},
    {
        **{"o": "mlp_drop", "s": "iterative_mlp_drop", "D": "random_mlp"},
        **{"p": "output_change", "d": "output_change_mlp", "v": "output_change_blocks", "8": "output_change_joint"},
    },
    {"o": "divergence", "s": "divergence_mlp", "^": "divergence_blocks", "D": "divergence_joint"},
    {"o": "awq", "s": "rtn", "p": "taylor_attn", "d": "taylor_mlp", "v": "taylor_blocks"},
    # Where a marker stands for a criterion by divergence (figure 28), it tells both from each other.
    {
        "p": "divergence_estimate",
        "d": "divergence_estimate_mlp",
        "v": "divergence_estimate_blocks",
        "8": "divergence_estimate_joint",
    },
)
LOOKS = {name: (PALETTE[place], marker) for place, kind in enumerate(_KINDS) for marker, name in kind.items()}
# Of pruners of the user's own: markers that no built-in pruner has.
SPARE_LOOKS = tuple((colour, marker) for marker in ("P", "X", "<", ">", "h") for colour in PALETTE)
LINE_STYLES: tuple[LineStyleType, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (8, 2)),
    (0, (2, 2)),
)


def pruner_colours(names: Iterable[str]) -> dict[str, str]:
    """Return the colour of each pruner, which a built-in one has in every figure."""
    return {name: colour for name, (colour, _) in _looks(names).items()}


def pruner_markers(names: Iterable[str]) -> dict[str, str]:
    """Return the marker of each pruner, which a built-in one has in every figure."""
    return {name: marker for name, (_, marker) in _looks(names).items()}


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


def _looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each name: its own, or a spare look by checksum that no other name here has."""
    looks: dict[str, tuple[str, str]] = {}
    for name in sorted(set(names)):
        start = zlib.crc32(name.encode()) % len(SPARE_LOOKS)
        turns = SPARE_LOOKS[start:] + SPARE_LOOKS[:start]
        known = (INK, "*") if name == DENSE else LOOKS.get(name)
        looks[name] = known or next((look for look in turns if look not in looks.values()), turns[0])
    return looks


_PARAMETERS: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType, as publishers ask for
    "figure.dpi": DPI,  # texts measured for the layout need not be measured again for the PNG
    "font.size": TEXT_SIZE,
    "axes.labelsize": TEXT_SIZE,
    "axes.titlesize": TEXT_SIZE,
    "axes.titley": 1.0,  # no ticks are above a panel: matplotlib need not look for them each time
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
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": LINE,
    "lines.solid_capstyle": "round",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "text.hinting": "no_hinting",  # text is as wide as measured, at every resolution
    "svg.hashsalt": "figures",
}
_given: ContextVar[FiguresConfig | None] = ContextVar("figures", default=None)
_span: ContextVar[Span] = ContextVar("span", default="page")


@cache
def _parameters() -> dict[Any, Any]:
    """Return the parameters of matplotlib, all but that of the backend, which no figure here asks for."""
    with mpl.rc_context():
        mpl.rcdefaults()
        sns.set_theme(context="paper", style="ticks", font=FONT)
        mpl.rcParams.update(_PARAMETERS)
        return {name: mpl.rcParams[name] for name in mpl.rcParams if not name.startswith("backend")}


def for_paper() -> bool:
    """Return whether figures are drawn without title and caption, which a paper has in its text."""
    return _config().style == PAPER


def width() -> float:
    """Return the width of the picture in inches: of a column or of a page in print, of a page on the screen."""
    return float(_config().column if for_paper() and _span.get() == "column" else _config().page)


def _config() -> FiguresConfig:
    return _given.get() or by_default()


@contextmanager
def look(figures: FiguresConfig | None = None, span: Span = "page") -> Iterator[None]:
    """Draw with this project's style, in the given form, and with none of the user's own settings of matplotlib."""
    tokens = _given.set(figures), _span.set(span)
    try:
        with mpl.rc_context(_parameters()):
            yield
    finally:
        _given.reset(tokens[0])
        _span.reset(tokens[1])
