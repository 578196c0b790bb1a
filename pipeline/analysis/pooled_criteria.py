"""Criteria pooled over models, budgets, texts and halves: what each retains, and how much more than the reference.

A cell is one model, set of tasks, text and budget, in which several criteria were evaluated on the same items. Means
are over cells. The variance of a mean over items is that of its linearisation (the delta method; strata are tasks), in
which an item that several cells ask counts once for all of them. The variance over draws of the text is that between
draws of one text, where there are several. Degrees of freedom are Welch and Satterthwaite's, and the p of several
comparisons are corrected by Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from pipeline.evaluate.intervals import TAIL

if TYPE_CHECKING:
    from pandas.core.groupby import SeriesGroupBy

# What a cell is; `text` and `draw` say what the criteria have read.
CELL = ["model", "tasks", "text", "draw", "sparsity"]
ITEM = [*CELL, "task", "item"]
COLUMNS = [
    "criterion", "cells", "items", "kept", "kept_low", "kept_high", "against", "difference", "low", "high", "p",
    "p_holm", "draws", "items_to_tell",
]  # fmt: skip


class Part(NamedTuple):
    """A part of a variance and its degrees of freedom."""

    variance: float
    freedom: float


class Estimate(NamedTuple):
    """A mean over cells; its variance over items and, where there are several draws, over draws."""

    value: float
    over_items: Part
    over_draws: tuple[Part, ...]

    @property
    def error(self) -> float:
        return math.sqrt(sum(part.variance for part in (self.over_items, *self.over_draws)))

    @property
    def freedom(self) -> float:
        """Welch and Satterthwaite's degrees of freedom."""
        spent = sum(part.variance**2 / part.freedom for part in (self.over_items, *self.over_draws))
        return self.error**4 / spent if spent else self.over_items.freedom

    def interval(self) -> tuple[float, float]:
        """Return the ends of the 95 % interval."""
        half = self.error * float(stdtrit(self.freedom, TAIL))
        return self.value - half, self.value + half

    def p(self) -> float:
        """Test whether the mean is 0: the two-sided p of Student's t."""
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))

    def items_to_tell(self, items: int) -> float:
        """Return how many items in place of ``items`` would tell this mean from 0; infinite if draws forbid it."""
        left = (self.value / float(stdtrit(self.freedom, TAIL))) ** 2 - sum(part.variance for part in self.over_draws)
        return math.ceil(items * self.over_items.variance / left) if left > 0 else math.inf


def pooled(items: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Estimate what every criterion retains of the dense score above chance, and its difference to a reference.

    Args:
        items: one row for each item of each evaluation: `CELL`, ``criterion``, ``replicate`` (draws of a random
            criterion, whose mean counts), ``task``, ``item``, ``score``, ``dense``, the dense model's score, and
            ``chance``, the task's chance level. Only of tasks that the dense model solves above chance.
        reference: the criterion that the others are compared with.

    Returns:
        `COLUMNS`, one row a criterion by its difference: ``kept`` over its own cells, ``difference`` (criterion minus
        reference, as fractions of the dense score above chance) over the cells that have both, ``p_holm`` over all
        comparisons, ``draws`` of the text, and ``items_to_tell``, the number of items that would tell it from 0.

    Raises:
        ValueError: if the reference is not among the criteria.
    """
    if reference not in set(items["criterion"]):
        raise ValueError(f"no rows of {reference}, which the others are compared with")
    by_criterion = {str(name): rows for name, rows in items.groupby("criterion", observed=True)}
    theirs = _mean_of_replicates(by_criterion[reference])
    rows = []
    for criterion, own in by_criterion.items():
        kept = _estimate(own.assign(base=own["chance"]))
        row = {
            "criterion": criterion,
            "cells": own.groupby(CELL, observed=True).ngroups,
            "items": _items(own),
            "kept": kept.value,
        }
        row |= dict(zip(("kept_low", "kept_high"), kept.interval(), strict=True))
        row["draws"] = own.groupby(["model", "tasks", "text", "sparsity"])["draw"].nunique().max()
        both = own.join(theirs.rename("base"), on=ITEM, how="inner")
        if criterion != reference and len(both):
            more = _estimate(both)
            row |= {"against": reference, "difference": more.value, "p": more.p()}
            row |= dict(zip(("low", "high"), more.interval(), strict=True))
            row["items_to_tell"] = more.items_to_tell(_items(both))
        rows.append(row)
    found = pd.DataFrame(rows).reindex(columns=COLUMNS)
    compared = found["p"].notna()
    found.loc[compared, "p_holm"] = holm(found.loc[compared, "p"].to_numpy(dtype=float))
    # By the difference, which is over equal cells: a criterion that lacks some has another mean.
    order = found["difference"].fillna(0.0).sort_values(ascending=False, kind="stable").index
    return found.loc[order].reset_index(drop=True)


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Correct the p of several tests by Holm's (1979) step-down procedure."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return corrected


def _items(rows: pd.DataFrame) -> int:
    return int(rows.groupby(["task", "item"]).ngroups)


def _mean_of_replicates(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby(ITEM, observed=True)["score"].mean()


def _estimate(rows: pd.DataFrame) -> Estimate:
    """Estimate the mean over cells of (score - base) / (dense - chance), of means over tasks of means over items."""
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
    draws = [_between_draws(cells), _between_replicates(rows)]
    return Estimate(
        float(cells["kept"].mean()), Part(over_items, max(len(own) - len(strata), 1)), tuple(filter(None, draws))
    )


def _between_draws(cells: pd.DataFrame) -> Part | None:
    """Return the variance of the mean over cells from other draws of their texts; None without any.

    Cells of one model, text and draw move together. How far is taken from those that every draw of a text has.
    """
    alike = cells.groupby(["model", "tasks", "text", "sparsity"])["draw"].transform("nunique")
    repeated = cells[alike == alike.groupby([cells["model"], cells["text"]]).transform("max")]
    means = repeated.groupby(["model", "text", "draw"])["kept"].mean()
    shares = cells.groupby(["model", "text", "draw"]).size() / len(cells)
    return _pooled_variance(means.groupby(level=["model", "text"]), float(np.square(shares).sum()))


def _between_replicates(rows: pd.DataFrame) -> Part | None:
    """Return the variance of the mean over cells from other draws of a random criterion; None without any.

    All cells of a model and replicate move together.
    """
    by_task = rows.groupby(["model", "replicate", *(key for key in CELL if key != "model"), "task"])
    gained = by_task[["score", "base", "dense", "chance"]].mean().groupby(level=[*range(len(CELL) + 1)]).mean()
    kept = (gained["score"] - gained["base"]) / (gained["dense"] - gained["chance"])
    means = kept.groupby(level=["model", "replicate"]).mean()
    models = means.groupby(level="model").size()
    return _pooled_variance(means.groupby(level="model"), float((1 / models).sum() / len(models) ** 2))


def _pooled_variance(groups: SeriesGroupBy, share: float) -> Part | None:
    """Return the variance within groups times a share, with its degrees of freedom; None if no group has two."""
    found = groups.agg(["size", "var"])
    found = found[found["size"] > 1]
    freedom = int((found["size"] - 1).sum())
    return Part(float((found["var"] * (found["size"] - 1)).sum() / freedom) * share, freedom) if freedom else None
