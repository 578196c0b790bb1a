"""Text broken into lines that fill a width."""

from __future__ import annotations

from pipeline.plot import style
from pipeline.plot.letters import text_width

# Letters are drawn at whole pixels, which makes lines up to 2 % longer than their words together.
_SURE = 0.975


def wrap(text: str, size: float = style.SMALL_SIZE, room: float | None = None, *, bold: bool = False) -> list[str]:
    """Break a text into lines that fill `room` inches, or the width of the page, in its proportional font.

    Words that are wider are broken anywhere.
    """
    room = (style.width() - 2 * style.EDGE if room is None else room) * _SURE
    lines: list[str] = []
    used, space = 0.0, text_width(" ", size, bold)
    for word in text.split():
        # Words recur; lines, which take longer to measure, do not.
        wide = text_width(word, size, bold)
        if lines and used + space + wide <= room:
            lines[-1], used = f"{lines[-1]} {word}", used + space + wide
            continue
        parts = [word] if wide <= room else _broken(word, size, room, bold)
        lines += parts
        used = text_width(parts[-1], size, bold)
    return lines


def _broken(word: str, size: float, room: float, bold: bool) -> list[str]:
    """Break a word that is wider than `room` inches anywhere."""
    parts, used = [""], 0.0
    for mark in word:
        wide = text_width(mark, size, bold)
        if parts[-1] and used + wide > room:
            parts, used = [*parts, ""], 0.0
        parts[-1], used = parts[-1] + mark, used + wide
    return parts
