"""Table drawn as a page, ruled like LaTeX's booktabs: cells wrapped in the real font, the height from the content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from pipeline.plot import canvas, style
from pipeline.plot.cell_text import Cell, Line, Piece, wrap_cell

LINE = 0.135  # inches from one line of text to the next
GAP = 0.12  # between columns
HEAVY, LIGHT = 1.0, 0.5  # points: outer rules, and rules inside
ROOM = style.WIDTH - 2 * canvas.EDGE  # inches for a row


@dataclass(frozen=True)
class Column:
    """Column of `width` inches; numbers, in one colour, are right-aligned."""

    header: str
    width: float
    right: bool = False


@dataclass(frozen=True)
class Block:
    """Rows under one header.

    Attributes:
        spanner: a heading over the columns from index `first` on.
        pad: inches above and below the text of a row.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    spanner: str = ""
    first: int = 0
    pad: float = 0.045

    @property
    def edges(self) -> list[tuple[float, float]]:
        """Left and right edges of the columns, in inches from the left edge of the page."""
        edges, left = [], canvas.EDGE
        for column in self.columns:
            edges.append((left, left + column.width))
            left += column.width + GAP
        return edges


def table_page(blocks: Sequence[Block], *, title: str, caption: str) -> Canvas:
    """Return a canvas with the blocks one below the other, between title and caption."""
    footer = canvas.wrap(caption)
    laid = [[_layout(block.columns, row) for row in (_header(block), *block.rows)] for block in blocks]
    table = sum(_height(row, block.pad) for block, rows in zip(blocks, laid, strict=True) for row in rows)
    table += sum(LINE + 2 * block.pad for block in blocks if block.spanner)
    height = canvas.TITLE_HEIGHT + 0.1 + table + 0.12 + canvas.CAPTION_LINE * len(footer) + 0.1
    right = max(block.edges[-1][1] for block in blocks)
    page = _Page(Canvas(figsize=(style.WIDTH, height)), height, right)
    page.text(canvas.EDGE, height - 0.07, title, size=style.TITLE_SIZE, weight="bold", va="top")
    page.text(canvas.EDGE, 0.06, "\n".join(footer), size=style.SMALL_SIZE, color=style.GREY, va="bottom")
    top = height - canvas.TITLE_HEIGHT - 0.1
    page.rule(top, HEAVY)
    for number, (block, rows) in enumerate(zip(blocks, laid, strict=True)):
        if number:
            page.rule(top, LIGHT)
        top = page.block(block, rows, top)
    page.rule(top, HEAVY)
    return page.sheet


@dataclass(frozen=True)
class _Page:
    """Canvas addressed in inches from its lower left corner."""

    sheet: Canvas
    height: float
    right: float  # of the rules across the table

    def text(self, x: float, y: float, text: str, **look: Any) -> None:
        self.sheet.text(x / style.WIDTH, y / self.height, text, parse_math=False, **look)

    def rule(self, y: float, thickness: float, left: float = canvas.EDGE, right: float | None = None) -> None:
        right = self.right if right is None else right
        ends = ([left / style.WIDTH, right / style.WIDTH], [y / self.height] * 2)
        line = Line2D(*ends, transform=self.sheet.transFigure, color=style.INK, linewidth=thickness)
        line.set_solid_capstyle("butt")
        self.sheet.add_artist(line)

    def block(self, block: Block, rows: Sequence[Sequence[list[Line]]], top: float) -> float:
        """Draw a block from `top` down and return its lower edge."""
        if block.spanner:
            left, right = block.edges[block.first][0], block.edges[-1][1]
            baseline = top - block.pad - LINE / 2
            self.text(
                (left + right) / 2, baseline, block.spanner, size=style.SMALL_SIZE, weight="bold", ha="center",
                va="center_baseline",
            )  # fmt: skip
            top -= LINE + 2 * block.pad
            self.rule(top, LIGHT, left, right)
        for number, row in enumerate(rows):
            bottom = top - _height(row, block.pad)
            for column, edges, lines in zip(block.columns, block.edges, row, strict=True):
                # Header texts stand on the rule below them, cells hang from the top.
                start = bottom + block.pad + LINE * len(lines) if number == 0 else top - block.pad
                self._cell(column, edges, start, lines)
            top = bottom
            if number == 0:
                self.rule(top, LIGHT)
        return top

    def _cell(self, column: Column, edges: tuple[float, float], top: float, lines: Sequence[Line]) -> None:
        for number, line in enumerate(lines):
            baseline = top - LINE * number - 0.72 * LINE
            for offset, piece in line:
                self.text(
                    edges[1] if column.right else edges[0] + offset, baseline, piece.text, size=style.SMALL_SIZE,
                    color=piece.colour, weight="bold" if piece.bold else "normal", va="baseline",
                    ha="right" if column.right else "left",
                )  # fmt: skip


def _header(block: Block) -> list[Cell]:
    return [(Piece(column.header, bold=True),) for column in block.columns]


def _layout(columns: Sequence[Column], row: Sequence[Cell]) -> list[list[Line]]:
    return [wrap_cell(cell, column.width) for column, cell in zip(columns, row, strict=True)]


def _height(row: Sequence[Sequence[Line]], pad: float) -> float:
    return LINE * max(1, *(len(lines) for lines in row)) + 2 * pad
