"""Section "demoted or erased" of the report: where the gold answers stand that variants no longer generate."""

from __future__ import annotations

import math

import pandas as pd

from pipeline.analysis.demotion import demotion, sentence
from pipeline.evaluate.fidelity import HIGH, IN_REACH
from pipeline.report.table import NONE, Cell, Column, Table, number, plain_table
from pipeline.tables.read import Tables
from pipeline.tables.variants import Variant


def demotion_sentence(tables: Tables) -> str:
    """Return the sentence on the variant that lost most answers; empty if none lost any."""
    return sentence(demotion(tables)).replace(" %", "\u00a0%")


def demotion_table(tables: Tables) -> Table | None:
    """Return ranks of the gold tokens of lost answers, and what is right by multiple choice; None without any lost."""
    found = demotion(tables)
    if found.empty:
        return None
    ranks, twins = "gold token in rank", "asked by multiple choice"
    columns = [
        Column("variant", words=True),
        Column("lost", "of dense's right answers"),
        Column(f"1–{HIGH}", "%", ranks),
        Column(f"{HIGH + 1}–{IN_REACH}", "%", ranks),
        Column(f"beyond {IN_REACH}", "%", ranks),
        Column("right", "%", twins),
    ]
    rows = [_row(place, row) for place, (_, row) in enumerate(found.iterrows())]
    guessed = found["chance"].dropna()
    by_chance = f" Guessing gets {100 * guessed.iloc[0]:.0f}%." if len(guessed) else ""
    caption = (
        "Lost: items that dense generates rightly and the variant does not. Rank: of the first gold token that differs "
        "from the variant's text, in the variant's own distribution, 1 being the likeliest. Right: of the lost items "
        f"that were asked by multiple choice as well. Below: 95% intervals over items.{by_chance}"
    )
    return plain_table(caption, columns, rows)


def _row(place: int, row: pd.Series) -> tuple[Cell, ...]:
    lost = Cell(f"{row['lost']:.0f} of {row['dense_right']:.0f}", float(row["lost"]))
    label = Cell(Variant(row["pruner"], row["sparsity"], row["options"]).label, place)
    middle = number(100 * row["reach"], ".0f")
    return label, lost, _share(row, "high"), middle, _share(row, "beyond"), _share(row, "twin")


def _share(row: pd.Series, name: str) -> Cell:
    value, low, high = (100 * float(row[each]) for each in (name, f"{name}_low", f"{name}_high"))
    return number(value, ".0f", note=f"[{low:.0f}, {high:.0f}]") if math.isfinite(value) else Cell(NONE)
