"""Conversion of the CSV of a table (`tabN_name`) to a table of the page, in place of a picture."""

from __future__ import annotations

import math

import pandas as pd

from pipeline.analysis.effects import kind_name
from pipeline.plot.figure_csv import TEXT_COLUMNS, from_csv
from pipeline.report.changes import PERPLEXITY
from pipeline.report.table import NONE, Cell, Column, Table, number, plain_table, with_error

SHARED = "same_text"  # text that dense generates too, muted as in the drawn table
LABEL, LABELLED = "label", ("pruner", "sparsity", "options")
LONG = 24  # a column with a text of more characters than this is prose
SCORES = ["label", "parameters", "kind", "series", "score_percent", "stderr_percent", PERPLEXITY]


def csv_table(csv: bytes) -> Table:
    """Convert a CSV to a table: scores, one per line, to a row per model; any other CSV as it is, numbers rounded."""
    data = from_csv(csv)
    return _scores(data) if set(SCORES) <= set(data.columns) else _as_it_is(data)


def _scores(data: pd.DataFrame) -> Table:
    """Return a table with a row per model in the order of the CSV, and a column per task and mean."""
    places = list(dict.fromkeys(zip(data["kind"], data["series"], strict=True)))
    # Perplexities have a column of their own, and no percentage.
    scores = data.assign(score_percent=data["score_percent"].fillna(data[PERPLEXITY]))
    scores = scores.set_index(["label", "kind", "series"])[["score_percent", "stderr_percent"]]
    rows = []
    for place, (label, own) in enumerate(data.groupby("label", sort=False)):
        cells = [_score(scores, (str(label), *at)) for at in places]
        rows.append((Cell(str(label), place), number(float(own["parameters"].iloc[0]), ",.0f"), *cells))
    tasks = [Column(series, group=kind_name(kind)) for kind, series in places]
    return plain_table("", (Column("model", words=True), Column("parameters"), *tasks), rows)


def _score(scores: pd.DataFrame, key: tuple[str, str, str]) -> Cell:
    if key not in scores.index:
        return Cell(NONE)
    value, error = (float(part) for part in scores.loc[key])
    return Cell(with_error(value, error, ".1f"), value)


def _as_it_is(data: pd.DataFrame) -> Table:
    """Return the rows and columns of the CSV; a label comes first and replaces the columns it is made of."""
    if LABEL in data:
        data = data[[LABEL, *(name for name in data.columns if name not in (LABEL, *LABELLED))]]
    columns = tuple(_column(data[name]) for name in data.columns)
    rows = tuple(
        tuple(
            _text(value) if column.words else number(float(value), ".4g")
            for value, column in zip(line, columns, strict=True)
        )
        for line in data.itertuples(index=False)
    )
    return plain_table("", columns, rows)


def _column(values: pd.Series) -> Column:
    name = str(values.name)
    words = name in TEXT_COLUMNS
    long = words and values.dropna().astype(str).str.len().max() > LONG
    return Column(name.replace("_", " "), words=words, prose=bool(long), muted=name == SHARED)


def _text(value: object) -> Cell:
    absent = isinstance(value, float) and math.isnan(value)
    return Cell(NONE if absent else str(value))
