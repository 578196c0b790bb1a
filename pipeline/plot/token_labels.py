"""Text of tokens as labels on the axes of a figure."""

from __future__ import annotations

from functools import cache

from matplotlib.font_manager import FontProperties, fontManager, get_font

LENGTH = 9
VISIBLE = {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}
UNKNOWN = "\ufffd"


def visible(text: str) -> str:
    """Show the white space of a token, replace its unprintable characters, and cut its end if it is long."""
    shown = "".join(VISIBLE.get(character) or (character if _printable(character) else UNKNOWN) for character in text)
    return (shown if len(shown) <= LENGTH else f"{shown[: LENGTH - 1]}\u2026") or "\u2205"


@cache
def _printable(character: str) -> bool:
    """Return whether a character is printable and the font of figures has a glyph for it."""
    font = get_font(fontManager.findfont(FontProperties(family="DejaVu Sans")))
    return character.isprintable() and ord(character) in font.get_charmap()
