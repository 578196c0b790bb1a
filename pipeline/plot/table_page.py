"""Table drawn as a page, ruled like LaTeX's booktabs: cells wrapped in the real font, the height from the content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from pipeline.plot import canvas, style
from pipeline.plot.base import Figure, Selection
from pipeline.plot.cell_text import Cell, Line, Piece, wrap_cell
from pipeline.plot.table_block import Block, Column
from pipeline.tables.read import Tables

LINE = 0.135  # inches from one line of text to the next
HEAVY, LIGHT = 1.0, 0.5  # points: outer rules, and rules inside


def table_page(blocks: Sequence[Block], *, title: str, caption: str) -> Canvas:
    """Return a canvas with the blocks one below the other, between title and caption."""
    laid = [[_layout(block.columns, row) for row in (_header(block), *block.rows)] for block in blocks]
    table = sum(_height(row, block.pad) for block, rows in zip(blocks, laid, strict=True) for row in rows)
    table += sum(LINE + 2 * block.pad for block in blocks if block.spanners)
    sheet, _ = canvas.blank(table + 0.16, title=title, caption=caption)
    page = _Page(sheet, max(block.edges[-1][1] for block in blocks))
    top = page.height - sheet.head - 0.06
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
    right: float  # of the rules across the table

    @property
    def height(self) -> float:
        return float(self.sheet.get_size_inches()[1])

    def text(self, x: float, y: float, text: str, **look: Any) -> None:
        self.sheet.text(x / style.width(), y / self.height, text, parse_math=False, **look)

    def rule(self, y: float, thickness: float, left: float = style.EDGE, right: float | None = None) -> None:
        right = self.right if right is None else right
        ends = ([left / style.width(), right / style.width()], [y / self.height] * 2)
        line = Line2D(*ends, transform=self.sheet.transFigure, color=style.INK, linewidth=thickness)
        line.set_solid_capstyle("butt")
        self.sheet.add_artist(line)

    def block(self, block: Block, rows: Sequence[Sequence[list[Line]]], top: float) -> float:
        """Draw a block from `top` down and return its lower edge."""
        if block.spanners:
            baseline = top - block.pad - LINE / 2
            top -= LINE + 2 * block.pad
            for text, first, last in block.spans:
                left, right = block.edges[first][0], block.edges[last][1]
                middle = {"ha": "center", "va": "center_baseline"}
                self.text((left + right) / 2, baseline, text, size=style.SMALL_SIZE, weight="bold", **middle)
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


def table_figure(
    select: Callable[[Tables], Selection], blocks: Callable[[pd.DataFrame], list[Block]], version: int = 1
) -> Figure:
    """Return the figure of a table, whose blocks become a page, or LaTeX."""

    def draw(data: pd.DataFrame, title: str, caption: str) -> Canvas:
        return table_page(blocks(data), title=title, caption=caption)

    return Figure(select, draw, version, blocks=blocks)
