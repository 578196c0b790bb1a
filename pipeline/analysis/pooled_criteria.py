"""Criteria pooled over models, budgets, texts and halves: what each retains, and how much more than the reference.

A cell is one model, set of tasks, text and budget, in which several criteria were evaluated on the same items; draws
of its text are averaged. Means are over cells. The variance of a mean over items is that of its linearisation (the
delta method; strata are tasks), in which an item that several cells ask counts once for all of them, with room for
unseen items as in `pipeline.evaluate.intervals.student`. The variance over draws of the text is that between draws of
one text, on the items that all of them were asked; a criterion with a single draw gets that of the others, pooled.
Degrees of freedom are Welch and Satterthwaite's, and the p of several comparisons are corrected by Holm (1979).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from pipeline.analysis.pooled_estimate import Drawn, Estimate, Part, holm_factors, lend_draws, pooled_variance
from pipeline.evaluate.intervals import DIFFERENCES, SCORES, TAIL, room_for_unseen

if TYPE_CHECKING:
    from pandas.core.groupby import SeriesGroupBy

# What a cell is, and one draw of its text; `text` and `draw` say what the criteria have read.
CELL = ["model", "tasks", "text", "sparsity"]
DRAW = [*CELL, "draw"]
ITEM = [*DRAW, "task", "item"]
COLUMNS = [
    "criterion", "cells", "items", "kept", "kept_low", "kept_high", "against", "difference", "low", "high", "p",
    "p_holm", "draws", "items_to_tell",
]  # fmt: skip
# What was drawn: texts, the random choices of a criterion, and those of the reference.
TEXTS, OWN, THEIRS = "texts", "own", "theirs"


def pooled(items: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Estimate what every criterion retains of the dense score above chance, and its difference to a reference.

    Args:
        items: one row for each item of each evaluation: `DRAW`, ``criterion``, ``replicate`` (draws of a random
            criterion, whose mean counts), ``task``, ``item``, ``score``, ``dense``, the dense model's score, and
            ``chance``, the task's chance level. Only of tasks that the dense model solves above chance. ``reads``, if
            it is there, says whether the criterion has read the text.
        reference: the criterion that the others are compared with.

    Returns:
        `COLUMNS`, one row a criterion by its difference: ``kept`` over its own cells, ``difference`` (criterion minus
        reference, as fractions of the dense score above chance) over the cells that have both, ``p_holm`` and the
        interval corrected for all comparisons, ``draws`` of the text (0 if the criterion reads none), and
        ``items_to_tell``, the number of items that would tell it from 0 among as many comparisons.

    Raises:
        ValueError: if the reference is not among the criteria.
    """
    if reference not in set(items["criterion"]):
        raise ValueError(f"no rows of {reference}, which the others are compared with")
    items = items.dropna(subset=["score", "dense"])
    by_criterion = {str(name): rows for name, rows in items.groupby("criterion", observed=True)}
    theirs = by_criterion[reference]
    kept = lend_draws({name: retained(own) for name, own in by_criterion.items()}, [TEXTS])
    both = {name: own for name, own in by_criterion.items() if name != reference and len(_shared(own, theirs))}
    more = lend_draws({name: difference(own, theirs) for name, own in both.items()}, [TEXTS])
    tests = dict(zip(more, holm_factors([one.p() for one in more.values()]), strict=True))
    rows = []
    for name, own in by_criterion.items():
        row: dict[str, Any] = {"criterion": name, "items": _count(own)}
        row["cells"] = own.groupby(CELL, observed=True).ngroups
        row["draws"] = own.groupby(CELL, observed=True)["draw"].nunique().max() if _reads(own) else 0
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
    items = _items(rows.assign(base=rows["chance"]))
    drawn = {TEXTS: _between_texts(items)} if _reads(rows) else {}
    return _estimate(items, items["score"], SCORES, drawn | {OWN: _between_replicates(rows)})


def difference(rows: pd.DataFrame, reference: pd.DataFrame) -> Estimate:
    """Estimate how much more a criterion retains than another, from the rows of `pooled`, over items that both have.

    Raises ValueError if there are none.
    """
    own, theirs = _shared(rows, reference), _shared(reference, rows)
    if own.empty:
        raise ValueError("no cell has both")
    items = _items(own.join(_mean_of_replicates(theirs).rename("base"), on=ITEM))
    drawn = {OWN: _between_replicates(own), THEIRS: _between_replicates(theirs)}
    return _estimate(items, items["gain"], DIFFERENCES, {TEXTS: _between_texts(items), **drawn})


def _reads(rows: pd.DataFrame) -> bool:
    return "reads" not in rows or bool(rows["reads"].any())


def _shared(rows: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of items that the other criterion was asked after the same draw."""
    return rows.merge(other[ITEM].drop_duplicates(), on=ITEM)


def _count(rows: pd.DataFrame) -> int:
    return int(rows.groupby(["task", "item"]).ngroups)


def _mean_of_replicates(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby(ITEM, observed=True)["score"].mean()


def _items(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row an item and draw: its ``gain`` over the base, and what dense has ``above`` chance."""
    items = rows.groupby(ITEM, observed=True)[["score", "base", "dense", "chance"]].mean().reset_index()
    return items.assign(gain=items["score"] - items["base"], above=items["dense"] - items["chance"])


def _draws(items: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each `DRAW` with its ``kept``, ``whole`` (dense above chance) and ``weight`` in the mean."""
    by_task = items.groupby([*DRAW, "task"], observed=True)[["gain", "above"]].mean()
    means = by_task.groupby(level=DRAW, observed=True).mean().reset_index()
    cells = means.groupby(CELL, observed=True)["draw"]
    weight = 1 / (cells.transform("size") * cells.ngroups)
    return means[DRAW].assign(kept=means["gain"] / means["above"], whole=means["above"], weight=weight)


def _estimate(items: pd.DataFrame, seen: pd.Series, scale: tuple[float, float], drawn: Mapping[str, Drawn]) -> Estimate:
    """Estimate the mean over cells of gain / above, each of means over tasks of means over items.

    ``seen`` are the items' values on the ``scale``, which say how many of them are alike.
    """
    draws = _draws(items)
    rows = items.assign(seen=seen).merge(draws, on=DRAW)
    by_task = rows.groupby([*DRAW, "task"], observed=True)
    # What one whole task of a draw weighs in the mean over cells, and an item of it.
    rows["share"] = rows["weight"] / rows["whole"] / rows.groupby(DRAW, observed=True)["task"].transform("nunique")
    each = rows["share"] / by_task["gain"].transform("size")
    # How much an item moves the mean: its deviation within its task, of the numerator and of the denominator.
    moved = rows[["gain", "above"]] - by_task[["gain", "above"]].transform("mean")
    moves = each * (moved["gain"] - rows["kept"] * moved["above"])
    own = moves.groupby([rows["task"], rows["item"]]).sum()
    strata = np.square(own).groupby(level="task").agg(["size", "sum"])
    alone = strata["size"] < 2
    over_items = (strata["sum"] * strata["size"] / (strata["size"] - 1).clip(lower=1)).where(~alone, np.inf)
    unseen = [0.0 if alone[task] else _unseen(part, scale) for task, part in rows.groupby("task", observed=True)]
    part = Part(float(over_items.sum() + sum(unseen)), max(len(own) - len(strata), 1))
    return Estimate(float(draws["kept"] @ draws["weight"]), part, drawn)


def _unseen(rows: pd.DataFrame, scale: tuple[float, float]) -> float:
    """Return the variance that items of a task which were not asked add to the mean over cells."""
    weighed = (rows["seen"] * rows["share"]).groupby(rows["item"]).sum()
    values = (weighed / rows.groupby("item")["share"].sum()).to_numpy()
    whole = rows.drop_duplicates(DRAW)["share"].sum()
    return float(np.square(whole * room_for_unseen(values, scale) / stdtrit(len(values) - 1, TAIL)))


def _between_texts(items: pd.DataFrame) -> Drawn:
    """Return how far draws of a text differ in cells and on items that every draw has.

    Those of a model and draw move together.
    """
    shares = _draws(items).groupby(["model", "text", "draw"], observed=True)["weight"].sum()
    repeated = _in_all(items, CELL, "draw")
    means = _draws(repeated).groupby(["model", "text", "draw"], observed=True)["kept"].mean()
    return Drawn(_within(means.groupby(level=["model", "text"], observed=True)), float(np.square(shares).sum()))


def _between_replicates(rows: pd.DataFrame) -> Drawn:
    """Return how far replicates differ in cells and on items that all of a model have.

    Cells of one replicate move together.
    """
    counted = rows[[*DRAW, "replicate"]].drop_duplicates()
    each = 1 / counted.groupby(DRAW, observed=True)["replicate"].transform("size")
    cells = counted.assign(share=each / len(counted.drop_duplicates(DRAW)))
    shares = cells.groupby(["model", "replicate"], observed=True)["share"].sum()
    by_task = (
        _in_all(rows, DRAW, "replicate")
        .groupby([*DRAW, "replicate", "task"], observed=True)[["score", "dense", "chance"]]
        .mean()
    )
    means = by_task.groupby(level=[*DRAW, "replicate"], observed=True).mean()
    kept = ((means["score"] - means["chance"]) / (means["dense"] - means["chance"])).rename("kept").reset_index()
    own = kept.groupby(["model", "replicate"], observed=True)["kept"].mean()
    return Drawn(_within(own.groupby(level="model", observed=True)), float(np.square(shares).sum()))


def _in_all(rows: pd.DataFrame, place: list[str], drawn: str) -> pd.DataFrame:
    """Return the rows of places that most were ``drawn`` in, by model and text, and of items that all have there."""
    count = rows.groupby(place, observed=True)[drawn].transform("nunique")
    most = count.groupby([rows["model"], rows["text"]], observed=True).transform("max")
    on_item = rows.groupby([*place, "task", "item"], observed=True)[drawn].transform("nunique")
    return rows[(count == most) & (on_item == count)]


def _within(groups: SeriesGroupBy) -> Part | None:
    """Return the variance within groups, pooled; None if no group has two."""
    found = groups.agg(["size", "var"])
    return pooled_variance([Part(row.var, row.size - 1) for row in found[found["size"] > 1].itertuples()])
