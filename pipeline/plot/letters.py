"""Width of a text from those of its letters: there are few, and many words, each of which takes long to lay out."""

from __future__ import annotations

from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

FONT = "DejaVu Sans"  # which matplotlib ships


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return the width that a text takes in a line, in inches, or a little more where letters move together."""
    return sum(laid_width(mark, size, bold) for mark in text)


@cache
def laid_width(text: str, size: float, bold: bool = False) -> float:
    """Return the width that a text takes in a line as it is drawn, in inches."""
    # The measured box covers the ink, not spaces at the ends.
    whole, ends = (
        text_to_path.get_text_width_height_descent(each, font(size, bold), ismath=False)[0]
        for each in (f"|{text}|", "||")
    )
    return float(whole - ends) / 72


@cache
def font(size: float, bold: bool = False) -> FontProperties:
    """Return the font of all figures."""
    return FontProperties(family=FONT, size=size, weight="bold" if bold else "normal")
