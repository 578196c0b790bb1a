"""Table of the scores of every variant and task, with dense on top and the differences from it."""

from __future__ import annotations

import math

import pandas as pd

from pipeline.analysis.score_means import MEAN
from pipeline.evaluate.comparison import NO_SIGNAL, TOO_FEW
from pipeline.report.answer import tone_of
from pipeline.report.changes import PERPLEXITY, Change, changes, kind_name, kinds_of, percent_scores
from pipeline.report.table import NONE, Cell, Column, Table, minus, number, with_interval
from pipeline.tables.read import Tables
from pipeline.tables.replicates import over_replicates
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import DENSE, Variant, variants_of

Cells = dict[tuple[str, str, Variant], Cell]


def scores_table(tables: Tables) -> Table | None:
    """Return a row per variant, a column per task, mean and perplexity, grouped by kind; None without scores."""
    if tables.scores.empty:
        return None
    cells = {**_percentages(tables), **_perplexities(tables.scores)}
    if not cells:
        return None
    kinds = [*kinds_of(tables.scores), PERPLEXITY]
    places = sorted(
        {(kind, series) for kind, series, _ in cells}, key=lambda at: (kinds.index(at[0]), at[1] != MEAN, at[1])
    )
    columns = [Column("variant", words=True), *(_column(tables.scores, kind, series) for kind, series in places)]
    rows: dict[bool, list[tuple[Cell, ...]]] = {True: [], False: []}
    for place, variant in enumerate(variants_of(tables.scores)):
        line = [cells.get((kind, series, variant), Cell(NONE)) for kind, series in places]
        name = DENSE if variant.pruner == DENSE else variant.label
        rows[variant.pruner == DENSE].append((Cell(name, place), *line))
    caption = (
        "Scores in percent. Below a score: its difference from dense in percentage points with its 95% confidence "
        "interval (both models on the same items), and whether the items are too few to tell; below a dense score: "
        "its standard error."
    )
    return Table(caption, tuple(columns), tuple(rows[False]), tuple(rows[True]))


def _percentages(tables: Tables) -> Cells:
    """Return cells of tasks and means: with the difference where the model was compared with dense, else alone."""
    try:
        scores = percent_scores(tables)
    except MissingData:
        return {}
    cells: Cells = {}
    for row in scores.itertuples():
        note = f"± {row.stderr_percent:.1f}" if math.isfinite(row.stderr_percent) else ""
        alone = Cell(minus(f"{row.score_percent:.1f}"), float(row.score_percent), note)
        cells[row.kind, row.series, Variant(row.pruner, row.sparsity, row.options)] = alone
    for (kind, series), by in changes(tables).items():
        cells |= {(kind, series, variant): _changed(change) for variant, change in by.items()}
    return cells


def _changed(change: Change) -> Cell:
    note = with_interval(change.difference, change.low, change.high)
    if change.verdict in (TOO_FEW, NO_SIGNAL):
        note += f", {change.verdict}"
    return Cell(f"{change.pruned:.1f}", change.pruned, note, tone_of(change.difference))


def _perplexities(scores: pd.DataFrame) -> Cells:
    """Return perplexities and their ratio to the dense one; the tint is deepest at twice the dense one and above."""
    rows = over_replicates(scores[scores["kind"] == PERPLEXITY], ["task"], "value")
    dense = rows[rows["pruner"] == DENSE].set_index("task")["value"].to_dict()
    cells: Cells = {}
    for row in rows.itertuples():
        ratio = float(row.value) / dense[row.task] if row.pruner != DENSE and row.task in dense else math.nan
        known = math.isfinite(ratio) and ratio > 0
        cells[PERPLEXITY, row.task, Variant(row.pruner, row.sparsity, row.options)] = number(
            float(row.value),
            ".2f" if row.value < 1000 else ".3g",
            note=f"× {ratio:.3g}" if known else "",
            tone=-math.log2(ratio) if known else 0.0,
        )
    return cells


def _column(scores: pd.DataFrame, kind: str, series: str) -> Column:
    group = kind_name(kind)
    if series == MEAN:
        return Column("mean", group=group)
    items = scores.loc[(scores["kind"] == kind) & (scores["task"] == series), "n"].dropna()
    counts = sorted({int(count) for count in items})
    return Column(
        series, f"{'–'.join(map(str, (counts[0], counts[-1])[: len(counts)]))} items" if counts else "", group
    )
