"""Width of a text from those of its letters: there are few, and many words, each of which takes long to lay out."""

from __future__ import annotations

from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

FONT = "DejaVu Sans"  # which matplotlib ships


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return the width that a text takes in a line, in inches, or a little more where letters move together."""
    return sum(_advance(mark, size, bold) for mark in text)


@cache
def font(size: float, bold: bool = False) -> FontProperties:
    """Return the font of all figures."""
    return FontProperties(family=FONT, size=size, weight="bold" if bold else "normal")


@cache
def _advance(mark: str, size: float, bold: bool) -> float:
    """Return how far one letter moves the next, in inches."""
    # The measured box covers the ink, not spaces at the ends.
    whole, ends = (
        text_to_path.get_text_width_height_descent(text, font(size, bold), ismath=False)[0]
        for text in (f"|{mark}|", "||")
    )
    return float(whole - ends) / 72
