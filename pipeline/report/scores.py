"""The scores of every variant and task, with dense on top and the differences from it."""

from __future__ import annotations

import math

import pandas as pd

from pipeline.figures.base import MissingData
from pipeline.figures.score_means import MEAN
from pipeline.figures.tables import Tables
from pipeline.figures.variants import DENSE, variants_of
from pipeline.report.answer import tone_of
from pipeline.report.changes import changes, kind_name, kinds_of, percent_scores
from pipeline.report.table import NONE, Cell, Column, Table, minus, with_error


def scores_table(tables: Tables) -> Table | None:
    """A row for each variant, a column for each task and mean, grouped by kind; None without scores."""
    try:
        scores = percent_scores(tables)
    except MissingData:
        return None
    places = [(kind, series) for kind in kinds_of(scores) for series in _series(scores[scores["kind"] == kind])]
    columns = [Column("variant", words=True), *(_column(tables.scores, kind, series) for kind, series in places)]
    found = {series: changes(scores, series) for _, series in places}
    cells = {
        (kind, series, *variant): Cell(
            f"{change.pruned:.1f}",
            change.pruned,
            with_error(change.difference, change.error, "+.1f"),
            tone_of(change.difference),
        )
        for kind, series in places
        for variant, change in found[series].get(kind, {}).items()
    }
    # Dense has no difference; nor has anyone where dense was not evaluated.
    for row in scores.itertuples():
        note = f"± {row.stderr_percent:.1f}" if math.isfinite(row.stderr_percent) else ""
        alone = Cell(minus(f"{row.score_percent:.1f}"), float(row.score_percent), note)
        cells.setdefault((row.kind, row.series, row.pruner, row.sparsity), alone)
    rows: dict[bool, list[tuple[Cell, ...]]] = {True: [], False: []}
    for place, variant in enumerate(variants_of(scores)):
        line = [cells.get((kind, series, *variant), Cell(NONE)) for kind, series in places]
        name = DENSE if variant.pruner == DENSE else variant.label
        rows[variant.pruner == DENSE].append((Cell(name, place), *line))
    caption = (
        "Scores in percent. Below a score: its difference from dense in points ± the standard error of the "
        "difference; below a dense score: its own standard error."
    )
    return Table(caption, tuple(columns), tuple(rows[False]), tuple(rows[True]))


def _series(rows: pd.DataFrame) -> list[str]:
    """The mean first, then the tasks by name."""
    names = sorted(set(rows["series"]) - {MEAN})
    return [*([MEAN] if (rows["series"] == MEAN).any() else []), *names]


def _column(scores: pd.DataFrame, kind: str, series: str) -> Column:
    group = kind_name(kind)
    if series == MEAN:
        return Column("mean", group=group)
    items = scores.loc[(scores["kind"] == kind) & (scores["task"] == series), "n"].dropna()
    counts = sorted({int(count) for count in items})
    return Column(
        series, f"{'–'.join(map(str, (counts[0], counts[-1])[: len(counts)]))} items" if counts else "", group
    )
