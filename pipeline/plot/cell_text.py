"""Text of a table cell: pieces of different colours, measured in the real font and wrapped together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib.font_manager import findfont, get_font

from pipeline.plot import letters, style

GLYPHS_NOTE = "Characters that the font lacks are written as their code points."


@dataclass(frozen=True)
class Piece:
    """Piece of text in one colour; a newline breaks the line."""

    text: str
    colour: str = style.INK
    bold: bool = False


Cell = tuple[Piece, ...]
Line = list[tuple[float, Piece]]  # pieces and where they start, in inches from the left edge of the cell


def plain(text: str) -> Cell:
    """Return a cell of one colour."""
    return (Piece(text),)


def text_width(text: str, bold: bool = False) -> float:
    """Return the width of a text in a cell, in inches."""
    return letters.text_width(text, style.SMALL_SIZE, bold)


def drawable(text: str) -> str:
    """Escape the characters that the font has no glyph for (`\\u4e2d`); newlines stay."""
    return "".join(mark if mark == "\n" or _has_glyph(mark) else _escape(mark) for mark in text)


def storable(text: str) -> str:
    """Escape the characters that do not survive a CSV file (carriage return, null)."""
    return "".join(_escape(mark) if mark in "\r\0" else mark for mark in text)


def wrap_cell(cell: Cell, width: float) -> list[Line]:
    """Break a cell at newlines and spaces, and words wider than `width` inches anywhere; spaces at breaks vanish.

    Each line holds its pieces with their offsets from the left, in inches.
    """
    lines = []
    for paragraph in _paragraphs(cell):
        line: list[Piece] = []
        used = 0.0
        for unit in _units(paragraph, width):
            if line and used + _width(_stripped(unit)) > width:
                lines.append(line)
                line, used = [], 0.0
            line += unit
            used += _width(unit)
        lines.append(line)
    return [_placed(_joined(line)) for line in lines]


def _units(paragraph: Sequence[Piece], width: float) -> Iterator[list[Piece]]:
    """Yield the units kept on one line: words, or the single characters of a word that is too wide for a line."""
    for word in _words(paragraph):
        if _width(_stripped(word)) > width:
            yield from _characters(word)
        else:
            yield word


@cache
def _has_glyph(mark: str) -> bool:
    return get_font(findfont(letters.font(style.SMALL_SIZE))).get_char_index(ord(mark)) != 0


def _escape(mark: str) -> str:
    return mark.encode("unicode_escape").decode()


def _paragraphs(cell: Cell) -> list[list[Piece]]:
    """Split a cell at newlines, and escape the characters without a glyph."""
    paragraphs: list[list[Piece]] = [[]]
    for piece in cell:
        for number, text in enumerate(drawable(piece.text).split("\n")):
            if number:
                paragraphs.append([])
            if text:
                paragraphs[-1].append(Piece(text, piece.colour, piece.bold))
    return paragraphs


def _words(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Split into words, each with the spaces after it; a word may consist of pieces of several colours."""
    words: list[list[Piece]] = [[]]
    for mark in _characters(pieces):
        if words[-1] and words[-1][-1].text.endswith(" ") and mark[0].text != " ":
            words.append([])
        words[-1] = _joined([*words[-1], *mark])
    return [word for word in words if word]


def _characters(pieces: Sequence[Piece]) -> list[list[Piece]]:
    return [[Piece(mark, piece.colour, piece.bold)] for piece in pieces for mark in piece.text]


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Join neighbouring pieces of the same colour and weight."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and (joined[-1].colour, joined[-1].bold) == (piece.colour, piece.bold):
            joined[-1] = Piece(joined[-1].text + piece.text, piece.colour, piece.bold)
        else:
            joined.append(piece)
    return joined


def _stripped(pieces: Sequence[Piece]) -> list[Piece]:
    """Strip the spaces at the end."""
    kept = list(pieces)
    while kept and not kept[-1].text.rstrip(" "):
        kept.pop()
    return [*kept[:-1], Piece(kept[-1].text.rstrip(" "), kept[-1].colour, kept[-1].bold)] if kept else []


def _width(pieces: Sequence[Piece]) -> float:
    """Return the width of pieces on one line, in inches."""
    return sum(text_width(piece.text, piece.bold) for piece in pieces)


def _placed(pieces: Sequence[Piece]) -> Line:
    line: Line = []
    for piece in _stripped(pieces):
        start, before = line[-1] if line else (0.0, Piece(""))
        line.append((start + letters.laid_width(before.text, style.SMALL_SIZE, before.bold), piece))
    return line
