"""Score against achieved sparsity: a panel for the means of each kind of task, a line per pruner."""

from __future__ import annotations

import pandas as pd

from pipeline.analysis.score_means import MEAN, READINGS
from pipeline.plot.base import Figure, Selection
from pipeline.plot.score_curves import FEW, curves, draw_curves, line_notes, span
from pipeline.tables.read import Tables
from pipeline.tables.variants import DENSE, Variant


def select(tables: Tables) -> Selection:
    """Select task scores and their mean for each kind of task, pruner and sparsity, in percent."""
    data, tasks = curves(tables)
    return Selection("Task scores against sparsity", data, (*line_notes(data), *tasks, *_kept(data)))


def _kept(data: pd.DataFrame) -> list[str]:
    """Return a note on what each of a few pruners retains of the dense means at its highest sparsity."""
    means = data[data["series"] == MEAN].set_index("kind")
    dense = means.loc[means["pruner"] == DENSE, "score_percent"]
    if set(READINGS) - set(dense.index) or (dense <= 0).any():
        return []
    parts = []
    for (pruner, options), rows in means[means["pruner"] != DENSE].groupby(["pruner", "options"]):
        top = rows[rows["achieved_percent"] == rows["achieved_percent"].max()].groupby(level=0)["score_percent"].last()
        if set(READINGS) <= set(top.index):
            shares = [f"{100 * top[kind] / dense[kind]:.0f}%" for kind in READINGS]
            parts.append(f"{Variant(pruner, '', options).line} {' / '.join(shares)}")
    if not parts or len(parts) > FEW:
        return []
    return [f"Retained of the dense mean at the highest sparsity, generation / multiple choice: {', '.join(parts)}."]


FIGURE = Figure(select, draw_curves, version=3, span=span)
