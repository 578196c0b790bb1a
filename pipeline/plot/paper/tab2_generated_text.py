"""Text that each model generates for one prompt, and where it first differs from the dense model's (table 2)."""

from __future__ import annotations

import re
import textwrap

import numpy as np
import pandas as pd

from pipeline.plot import style
from pipeline.plot.base import Selection
from pipeline.plot.cell_text import GLYPHS_NOTE, Cell, Piece, drawable, plain, storable, text_width
from pipeline.plot.table_block import GAP, Block, Column, room
from pipeline.plot.table_page import table_figure
from pipeline.tables.read import Tables
from pipeline.tables.replicates import first_replicates
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import (
    DENSE,
    VARIANT,
    Variant,
    drop_name,
    drop_notes,
    ordered,
    rows_of,
    spread,
    variants_of,
)

OPEN = "open"
DROPS = tuple(Variant(pruner, units) for pruner in ("attn_drop", "mlp_drop") for units in ("4", "8"))
LABEL = 1.2  # inches: greatest width of the labels
STEPS = 128  # the most tokens of a text that are shown
BREAK = "↵"


def select(tables: Tables) -> Selection:
    """Select, for each model, the number of tokens, the first different step, and the text before and from it on."""
    if tables.trajectories.empty:
        raise MissingData("the trajectories table has no rows for these settings")
    texts = first_replicates(tables.trajectories)
    prompt = _prompt(tables, list(dict.fromkeys(texts["prompt"])))
    rows = texts[texts["prompt"] == prompt].sort_values("step", kind="stable")
    cut = int(rows["step"].max()) >= STEPS
    rows = rows[rows["step"] < STEPS]
    shown = _shown(rows)
    records = [_dense(rows_of(rows, shown[:1])), *(_pruned(variant, rows_of(rows, [variant])) for variant in shown)]
    data = pd.DataFrame(records).assign(prompt=prompt)
    columns = ["prompt", *VARIANT, "label", "tokens", "first_difference", "same_text", "text"]
    return Selection(f"Continuations of one prompt by {tables.model()}", data[columns], _notes(tables, data, cut))


def _prompt(tables: Tables, names: list[str]) -> str:
    """Return the first open-ended prompt, or else the first."""
    known = tables.prompts
    formats = {} if known.empty else dict(zip(known["prompt"], known["format"], strict=True))
    return next((name for name in names if formats.get(name) == OPEN), names[0])


def _shown(rows: pd.DataFrame) -> list[Variant]:
    """Return Drop-4A, Drop-8A, Drop-4M and Drop-8M as far as they were run, and other variants in place of the rest."""
    everyone = variants_of(rows)
    drops = [variant for variant in everyone if variant in DROPS]
    others, _ = spread([variant for variant in everyone if variant not in drops], len(DROPS) - len(drops))
    return [*drops, *ordered(others)]


def _dense(rows: pd.DataFrame) -> dict[str, object]:
    written = rows[rows["dense_token"] >= 0]
    record = Variant(DENSE, "0")._asdict() | {"label": DENSE, "tokens": len(written), "first_difference": np.nan}
    return {**record, "same_text": "", "text": _text(written["dense_text"])}


def _pruned(variant: Variant, rows: pd.DataFrame) -> dict[str, object]:
    differs = rows.loc[rows["dense_token"] != rows["pruned_token"], "step"]
    first = float(differs.min())  # missing if there is none
    written = rows[rows["pruned_token"] >= 0]
    same = written["step"] < (np.inf if np.isnan(first) else first)
    record = variant._asdict() | {"label": drop_name(variant)}
    texts = {"same_text": _text(written.loc[same, "pruned_text"]), "text": _text(written.loc[~same, "pruned_text"])}
    return {**record, "tokens": len(written), "first_difference": first, **texts}


def _text(pieces: pd.Series) -> str:
    return storable("".join(pieces))


def _notes(tables: Tables, data: pd.DataFrame, cut: bool) -> tuple[str, ...]:
    name = data["prompt"].iloc[0]
    texts = {} if tables.prompts.empty else dict(zip(tables.prompts["prompt"], tables.prompts["text"], strict=True))
    asked = [textwrap.shorten(drawable(texts[name]), 300, placeholder=" …")] if name in texts else []
    generated = "".join([*data["same_text"], *data["text"]])
    whole = texts.get(name, "") + generated
    notes = [
        f"Prompt {name}: “{asked[0].removesuffix('.')}”." if asked else f"Prompt {name}.",
        "Grey: tokens that match the dense model's; black: from the first different token on.",
        "Steps count from 0.",
        *drop_notes(data),
        *([f"{BREAK}: line break."] if "\n" in generated else []),
        *([GLYPHS_NOTE] if drawable(whole) != whole else []),
        *([f"The first {STEPS} tokens."] if cut else []),
    ]
    return tuple(notes)


def blocks(data: pd.DataFrame) -> list[Block]:
    """Draw a row for each model."""
    label = min(LABEL, max(text_width(text) for text in data["label"]) + 0.01)
    columns = [Column("model", label), Column("tokens", 0.42, right=True), Column("differs at step", 0.5, right=True)]
    rest = room() - sum(column.width + GAP for column in columns)
    columns.append(Column("generated text", rest))
    data = data.assign(**{name: data[name].fillna("") for name in ("same_text", "text")})
    rows = [
        [
            plain(row.label),
            plain(f"{row.tokens:.0f}"),
            plain(_step(row.pruner, row.first_difference)),
            _cell(row.same_text, row.text),
        ]
        for row in data.itertuples()
    ]
    return [Block(columns, rows)]


def _step(pruner: str, first: float) -> str:
    if pruner == DENSE:
        return ""
    return "never" if np.isnan(first) else f"{first:.0f}"


def _cell(same: str, rest: str) -> Cell:
    same, rest = _broken(same), _broken(rest)
    if rest:
        return Piece(same, style.GREY), Piece(rest.removesuffix("\n"))
    return (Piece(same.removesuffix("\n"), style.GREY),)


def _broken(text: str) -> str:
    """Show line breaks as marks, and break the line only once after a run of them, to save empty lines."""
    return re.sub(r"\n+", lambda run: BREAK * len(run[0]) + "\n", text)


FIGURE = table_figure(select, blocks)
