"""Criteria pooled over models, budgets, texts and halves: what each retains, and how much more than the reference.

A cell is one model, set of tasks, text and budget, in which several criteria were evaluated on the same items. Means
are over cells. The variance of a mean over items is that of its linearisation (the delta method; strata are tasks), in
which an item that several cells ask counts once for all of them. The variance over draws of the text is that between
draws of one text, where there are several. Degrees of freedom are Welch and Satterthwaite's, and the p of several
comparisons are corrected by Holm (1979).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.analysis.pooled_estimate import Drawn, Estimate, Part, alike_in_draws, holm_factors, pooled_variance

if TYPE_CHECKING:
    from pandas.core.groupby import SeriesGroupBy

# What a cell is; `text` and `draw` say what the criteria have read.
CELL = ["model", "tasks", "text", "draw", "sparsity"]
ITEM = [*CELL, "task", "item"]
COLUMNS = [
    "criterion", "cells", "items", "kept", "kept_low", "kept_high", "against", "difference", "low", "high", "p",
    "p_holm", "draws", "items_to_tell",
]  # fmt: skip
# What was drawn: texts, the random choices of a criterion, and those of the reference.
TEXTS, OWN, THEIRS = "texts", "own", "theirs"


def pooled(items: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Estimate what every criterion retains of the dense score above chance, and its difference to a reference.

    Args:
        items: one row for each item of each evaluation: `CELL`, ``criterion``, ``replicate`` (draws of a random
            criterion, whose mean counts), ``task``, ``item``, ``score``, ``dense``, the dense model's score, and
            ``chance``, the task's chance level. Only of tasks that the dense model solves above chance. ``reads``, if
            it is there, says whether the criterion has read the text.
        reference: the criterion that the others are compared with.

    Returns:
        `COLUMNS`, one row a criterion by its difference: ``kept`` over its own cells, ``difference`` (criterion minus
        reference, as fractions of the dense score above chance) over the cells that have both, ``p_holm`` and the
        interval corrected for all comparisons, ``draws`` of the text, and ``items_to_tell``, the number of items that
        would tell it from 0 among as many comparisons.

    Raises:
        ValueError: if the reference is not among the criteria.
    """
    if reference not in set(items["criterion"]):
        raise ValueError(f"no rows of {reference}, which the others are compared with")
    by_criterion = {str(name): rows for name, rows in items.groupby("criterion", observed=True)}
    theirs = by_criterion[reference]
    kept = alike_in_draws({name: retained(own) for name, own in by_criterion.items()}, [TEXTS])
    both = {name: own for name, own in by_criterion.items() if name != reference and len(_shared(own, theirs))}
    more = alike_in_draws({name: difference(own, theirs) for name, own in both.items()}, [TEXTS])
    tests = dict(zip(more, holm_factors([one.p() for one in more.values()]), strict=True))
    rows = []
    for name, own in by_criterion.items():
        row: dict[str, Any] = {"criterion": name, "items": _count(own)}
        row["cells"] = own.groupby(CELL, observed=True).ngroups
        row["draws"] = own.groupby(["model", "tasks", "text", "sparsity"])["draw"].nunique().max()
        row |= dict(zip(("kept", "kept_low", "kept_high"), kept[name].interval(), strict=True))
        if name in more:
            row |= {"against": reference, "p": more[name].p(), "p_holm": min(1.0, more[name].p() * tests[name])}
            row |= dict(zip(("difference", "low", "high"), more[name].interval(tests[name]), strict=True))
            row["items_to_tell"] = more[name].items_to_tell(_count(_shared(own, theirs)), tests[name])
        rows.append(row)
    found = pd.DataFrame(rows).reindex(columns=COLUMNS)
    # By the difference, which is over equal cells: a criterion that lacks some has another mean.
    order = found["difference"].fillna(0.0).sort_values(ascending=False, kind="stable").index
    return found.loc[order].reset_index(drop=True)


def retained(rows: pd.DataFrame) -> Estimate:
    """Estimate what a criterion retains of the dense score above chance, from its rows of `pooled`."""
    estimate, cells = _estimate(rows.assign(base=rows["chance"]))
    reads = "reads" not in rows or bool(rows["reads"].any())
    drawn = {TEXTS: _between_texts(cells)} if reads else {}
    return Estimate(*estimate, drawn | {OWN: _between_replicates(rows)})


def difference(rows: pd.DataFrame, reference: pd.DataFrame) -> Estimate:
    """Estimate how much more a criterion retains than another, from the rows of `pooled`, over items that both have.

    Raises ValueError if there are none.
    """
    own, theirs = _shared(rows, reference), _shared(reference, rows)
    if own.empty:
        raise ValueError("no cell has both")
    estimate, cells = _estimate(own.join(_mean_of_replicates(theirs).rename("base"), on=ITEM))
    drawn = {TEXTS: _between_texts(cells), OWN: _between_replicates(own), THEIRS: _between_replicates(theirs)}
    return Estimate(*estimate, drawn)


def _shared(rows: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of items that the other criterion was asked in the same cell."""
    return rows.merge(other[ITEM].drop_duplicates(), on=ITEM)


def _count(rows: pd.DataFrame) -> int:
    return int(rows.groupby(["task", "item"]).ngroups)


def _mean_of_replicates(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby(ITEM, observed=True)["score"].mean()


def _estimate(rows: pd.DataFrame) -> tuple[tuple[float, Part], pd.DataFrame]:
    """Estimate the mean over cells of (score - base) / (dense - chance), of means over tasks of means over items.

    Returns the mean and its variance over items, and the cells with their ``kept``.
    """
    items = rows.groupby(ITEM, observed=True)[["score", "base", "dense", "chance"]].mean().reset_index()
    items["gain"], items["above"] = items["score"] - items["base"], items["dense"] - items["chance"]
    size = items.groupby([*CELL, "task"])["gain"].transform("size")
    weight = 1 / (size * items.groupby(CELL, observed=True)["task"].transform("nunique"))
    values = items[["gain", "above"]]
    whole = values.mul(weight, axis=0).groupby([items[key] for key in CELL]).transform("sum")
    kept = whole["gain"] / whole["above"]
    cells = items[CELL].assign(kept=kept).drop_duplicates(CELL)
    # How much an item moves the mean: its deviation within its task, of the numerator and of the denominator.
    moved = values - values.groupby([items[key] for key in (*CELL, "task")]).transform("mean")
    moves = weight * (moved["gain"] - kept * moved["above"]) / whole["above"] / len(cells)
    own = moves.groupby([items["task"], items["item"]]).sum()
    strata = np.square(own).groupby(level="task").agg(["size", "sum"])
    over_items = float((strata["sum"] * strata["size"] / (strata["size"] - 1).clip(lower=1)).sum())
    return (float(cells["kept"].mean()), Part(over_items, max(len(own) - len(strata), 1))), cells


def _between_texts(cells: pd.DataFrame) -> Drawn:
    """Return how far draws of a text differ in cells that every draw has; those of a model and draw move together."""
    alike = cells.groupby(["model", "tasks", "text", "sparsity"])["draw"].transform("nunique")
    repeated = cells[alike == alike.groupby([cells["model"], cells["text"]]).transform("max")]
    means = repeated.groupby(["model", "text", "draw"])["kept"].mean()
    shares = cells.groupby(["model", "text", "draw"]).size() / len(cells)
    return Drawn(_within(means.groupby(level=["model", "text"])), float(np.square(shares).sum()))


def _between_replicates(rows: pd.DataFrame) -> Drawn:
    """Return how far replicates differ in cells that all of a model have; cells of one replicate move together."""
    by_task = rows.groupby([*CELL, "replicate", "task"])[["score", "dense", "chance"]].mean()
    means = by_task.groupby(level=[*CELL, "replicate"]).mean()
    kept = (means["score"] - means["chance"]) / (means["dense"] - means["chance"])
    cells = kept.rename("kept").reset_index()
    count = cells.groupby(CELL)["kept"].transform("size")
    repeated = cells[count == count.groupby(cells["model"]).transform("max")]
    own = repeated.groupby(["model", "replicate"])["kept"].mean()
    shares = (1 / count).groupby([cells["model"], cells["replicate"]]).sum() / cells.groupby(CELL).ngroups
    return Drawn(_within(own.groupby(level="model")), float(np.square(shares).sum()))


def _within(groups: SeriesGroupBy) -> Part | None:
    """Return the variance within groups, pooled; None if no group has two."""
    found = groups.agg(["size", "var"])
    return pooled_variance([Part(row.var, row.size - 1) for row in found[found["size"] > 1].itertuples()])
