"""Table of the scores of every variant and task, with dense on top and the differences from it."""

from __future__ import annotations

import math

import pandas as pd

from pipeline.analysis.effects import kind_name
from pipeline.analysis.score_means import MEAN
from pipeline.report.answer import tone_of
from pipeline.report.changes import PERPLEXITY, Change, changes, kinds_of, percent_scores
from pipeline.report.table import NONE, Body, Cell, Column, Table, minus, number, with_interval
from pipeline.tables.read import Tables
from pipeline.tables.replicates import over_replicates
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import DENSE, Variant, variants_of

Cells = dict[tuple[str, str, Variant], Cell]


def scores_table(tables: Tables) -> Table | None:
    """Return a row per task, mean and perplexity, and a column per variant, dense first; None without scores."""
    if tables.scores.empty:
        return None
    cells = {**_percentages(tables), **_perplexities(tables.scores)}
    if not cells:
        return None
    variants = sorted(variants_of(tables.scores), key=lambda variant: variant.pruner != DENSE)
    names = [DENSE if variant.pruner == DENSE else variant.label for variant in variants]
    columns = [Column("task", words=True), Column("items"), *map(Column, names)]
    bodies = []
    for kind in [*kinds_of(tables.scores), PERPLEXITY]:
        series = sorted({name for of, name, _ in cells if of == kind})
        rows = {name: [cells.get((kind, name, variant), Cell(NONE)) for variant in variants] for name in series}
        if MEAN in rows:
            mean = Cell("mean"), Cell(""), *rows.pop(MEAN)
            bodies.append(Body((mean,), kind_name(kind), fixed=True))
        lines = [(Cell(name), _items(tables.scores, kind, name), *row) for name, row in rows.items()]
        bodies += [Body(tuple(lines), "" if MEAN in series else kind_name(kind))] if lines else []
    caption = (
        "Scores in percent. Below a score: its difference from dense in percentage points with its 95% confidence "
        "interval (both models on the same items), and the verdict; below a dense score: "
        "its standard error."
    )
    return Table(caption, tuple(columns), tuple(bodies))


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
    note = f"{with_interval(change.difference, change.low, change.high)}, {change.verdict}"
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


def _items(scores: pd.DataFrame, kind: str, task: str) -> Cell:
    """Return the number of items of a task; of a perplexity, that of tokens. Two where variants were asked others."""
    items = scores.loc[(scores["kind"] == kind) & (scores["task"] == task), "n"].dropna()
    counts = sorted({int(count) for count in items})
    return (
        Cell("\u2013".join(f"{count:,}" for count in (counts[0], counts[-1])[: len(counts)]), counts[0])
        if counts
        else Cell(NONE)
    )
