"""Probe prompts, on whose continuations all states are measured (table 3)."""

from __future__ import annotations

import pandas as pd

from pipeline.plot.base import Selection
from pipeline.plot.cell_text import GLYPHS_NOTE, drawable, plain, storable, text_width
from pipeline.plot.table_block import GAP, Block, Column, room
from pipeline.plot.table_page import table_figure
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData


def select(tables: Tables) -> Selection:
    """Select number, name, format and text of every prompt, in the order in which they are asked."""
    if tables.prompts.empty:
        raise MissingData("the prompts table has no rows for these settings")
    prompts = tables.prompts.drop_duplicates("prompt").reset_index(drop=True)
    data = prompts.assign(number=prompts.index + 1, text=prompts["text"].map(storable))
    counts = ", ".join(f"{count} {name}" for name, count in data["format"].value_counts(sort=False).items())
    notes = [f"Prompts by format: {counts}.", f"Continued for at most {int(prompts['steps'].max())} tokens."]
    if any(drawable(text) != text for text in data["text"]):
        notes.append(GLYPHS_NOTE)
    return Selection("The probe prompts", data[["number", "prompt", "format", "text"]], tuple(notes))


def blocks(data: pd.DataFrame) -> list[Block]:
    """Draw a row for each prompt."""
    format_width = max(text_width(name) for name in ["arithmetic", *data["format"]]) + 0.01
    columns = [Column("no.", 0.25, right=True), Column("format", min(format_width, 1.5))]
    columns.append(Column("prompt", room() - sum(column.width + GAP for column in columns)))
    rows = [[plain(f"{row.number:.0f}"), plain(row.format), plain(row.text)] for row in data.fillna("").itertuples()]
    return [Block(columns, rows)]


FIGURE = table_figure(select, blocks)
