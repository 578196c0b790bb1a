"""What the text adds: the same criterion and budget, after reading one text or another, or another draw of it."""

from __future__ import annotations

import pandas as pd

from pipeline.analysis.pooled_criteria import CELL, OWN, THEIRS, difference, pooled, retained
from pipeline.analysis.pooled_estimate import holm_factors, lend_draws

COLUMNS = [
    "unit",
    "criterion",
    "text",
    "against",
    "cells",
    "kept",
    "kept_against",
    "difference",
    "low",
    "high",
    "p_holm",
]
_PLACE = ["model", "tasks", "sparsity"]


def texts_compared(cells: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Compare what a criterion retains after reading each of its texts with the first of them by name.

    Args:
        cells: the items of `pipeline.study.criteria.cells.named`; criteria without a text are left out.
        kind: of tasks.

    Returns:
        `COLUMNS`, one row for each criterion and further text: over the models, tasks and budgets that both texts
        have, as fractions of the dense score above chance; ``p_holm`` and the interval are corrected for all rows of a
        unit. Intervals are over items and draws of both texts; a criterion with one draw is lent the others' variance.
    """
    own = _of_readers(cells, kind)
    # The same tasks may be judged after texts of several families: each is a draw.
    several = own.groupby([*_PLACE, "unit", "read"], observed=True)["text"].transform(lambda own: own.factorize()[0])
    own = own.assign(replicate=own["draw"] + " " + several.astype(str), text="", draw="")
    found = [row for unit, rows in own.groupby("unit") for row in _of_unit(str(unit), rows)]
    return (
        pd.DataFrame(found, columns=COLUMNS)
        .sort_values(["unit", "difference"], ascending=[True, False], kind="stable")
        .reset_index(drop=True)
    )


def draws_compared(cells: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return what every criterion retains after reading each draw of its text.

    Args:
        cells: as in `texts_compared`.
        kind: of tasks.

    Returns:
        unit, text (its name), criterion, draw, kept (as a fraction of the dense score above chance), one row a draw of
        criteria with several: over the cells and items that all of its draws have.
    """
    own = _of_readers(cells, kind)
    rows = []
    for (unit, text, criterion), read in own.groupby(["unit", "read", "criterion"]):
        draws = read["draw"].nunique()
        shared = read[
            read.groupby([*_PLACE, "text", "task", "item"], observed=True)["draw"].transform("nunique") == draws
        ]
        if draws > 1 and len(shared):
            rows += [
                {"unit": unit, "text": text, "criterion": criterion, "draw": draw, "kept": _kept(one, str(criterion))}
                for draw, one in shared.groupby("draw")
            ]
    return pd.DataFrame(rows, columns=["unit", "text", "criterion", "draw", "kept"])


def _of_readers(cells: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the items of solved tasks of a kind, of criteria that read a text."""
    own = cells[(cells["kind"] == kind) & cells["solved"].astype(bool) & (cells["text"].astype(str) != "")]
    return own.astype(dict.fromkeys(("criterion", "unit", "draw", "text", "read"), str))


def _kept(items: pd.DataFrame, criterion: str) -> float:
    return float(pooled(items, criterion)["kept"].iloc[0])


def _of_unit(unit: str, items: pd.DataFrame) -> list[dict[str, object]]:
    """Return a row for each criterion and each further text of it."""
    pairs = {}
    for criterion, rows in items.groupby("criterion"):
        first, *others = sorted(rows["read"].unique())
        for text in others:
            both = rows[rows["read"].isin((first, text))]
            shared = both[both.groupby(_PLACE, observed=True)["read"].transform("nunique") == 2]
            if len(shared):
                pairs[criterion, text] = first, shared[shared["read"] == text], shared[shared["read"] == first]
    more = lend_draws({key: difference(new, old) for key, (_, new, old) in pairs.items()}, [OWN, THEIRS])
    p = [one.p() for one in more.values()]
    found = []
    for ((criterion, text), (first, new, old)), tests in zip(pairs.items(), holm_factors(p), strict=True):
        one = more[criterion, text]
        about = {"unit": unit, "criterion": criterion, "text": text, "against": first}
        about |= {"cells": new.groupby(CELL, observed=True).ngroups, "p_holm": min(1.0, one.p() * tests)}
        means = {"kept": retained(new).value, "kept_against": retained(old).value}
        found.append(about | means | dict(zip(("difference", "low", "high"), one.interval(tests), strict=True)))
    return found
