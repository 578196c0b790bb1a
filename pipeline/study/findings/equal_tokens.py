"""Finding on criteria that read less text, so that choosing sends no more tokens than `divergence` does."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from pipeline.evaluate.suite import GENERATIVE
from pipeline.study.criteria.__main__ import REFERENCES, compared, spent
from pipeline.study.criteria.cells import STAGES
from pipeline.study.findings.compared import kept_tables, table
from pipeline.study.findings.source import Measured, NoResults, Source
from pipeline.study.findings.table import Grid, Value

READ = "shots"
FEWER = ", fewer sequences"


def read(outputs: Path) -> Measured:
    """Return a table for each kind of unit: criteria after the whole text and after fewer sequences of it.

    Raises NoResults without searches on fewer sequences.
    """
    cells, costs = (beside_the_whole(rows) for rows in kept_tables())
    if not (fewer := cells["criterion"].str.endswith(FEWER)).any():
        raise NoResults(f"no search of {READ} has read fewer sequences; run some with calibration.sequences")
    values: dict[str, Value] = {}
    for unit in cells.loc[fewer, "unit"].unique():
        own = cells[cells["unit"] == unit]
        rows = compared(own, GENERATIVE, [REFERENCES[str(unit)]])
        spending = spent(costs, str(unit), READ)
        values[f"{unit}_table"] = _untimed(table(rows.merge(spending, on="criterion", how="left")))
    runs = costs[costs["criterion"].isin(cells["criterion"])].sort_values("started")
    commits = dict.fromkeys(runs["commit"].str[:7])
    stages = {name: int(runs[name].min()) for name in STAGES if runs[name].notna().any()}
    return Measured(values, stages, " and ".join(commits), runs["started"].iloc[-1][:10])


def beside_the_whole(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of criteria that were run on fewer sequences too, and of the reference, as of one text.

    `FEWER` is then in the name of the criterion: how many depends on the families. Kept are the models, tasks, budgets
    and draws that were run so.
    """
    place = [name for name in ("model", "tasks", "text", "draw", "unit", "sparsity") if name in rows]
    words = [*place, "criterion", "read", *(name for name in ("commit", "started") if name in rows)]
    rows = rows.astype(dict.fromkeys(words, str))
    fewer = rows["read"].str.startswith(f"{READ}, sequences ")
    less = rows[fewer].assign(text=rows["text"].map(_families), read=READ)
    less = less.assign(criterion=less["criterion"] + FEWER)
    whole = rows[rows["read"] == READ].assign(text=rows["text"].map(_families))
    whole = whole.merge(less[place].drop_duplicates(), on=place)
    again = {*rows.loc[fewer, "criterion"], *REFERENCES.values()}
    return pd.concat([whole[whole["criterion"].isin(again)], less], ignore_index=True)


def _untimed(grid: Grid) -> Grid:
    """Return a table without its seconds: the searches ran on several machines."""
    at = grid.columns.index("seconds")
    columns, *rows = ([*cells[:at], *cells[at + 1 :]] for cells in (grid.columns, *grid.rows))
    return Grid(columns, rows)


def _families(text: str) -> str:
    """Return what a text is of, whatever its number of sequences."""
    name, _, told = text.partition(" ")
    return " ".join([name, *json.loads(told or "{}").get("families", ())])


SOURCES = {"equal_tokens": Source("python -m pipeline.study.findings equal_tokens", read)}
