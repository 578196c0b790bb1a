"""What the text adds: the same criterion and budget, after reading one text or another, or another draw of it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pipeline.analysis.pooled_criteria import holm, pooled
from pipeline.study.criteria.cells import name_of

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
        cells: the items of `pipeline.study.criteria.cells.cells_of`; criteria without a text are left out.
        kind: of tasks.

    Returns:
        `COLUMNS`, one row for each criterion and further text: over the models, tasks and budgets that both texts
        have, as fractions of the dense score above chance. Draws of a text count as `pooled` counts those of a random
        criterion.
    """
    own = _of_readers(cells, kind)
    own = own.assign(read=name_of(own["text"]), replicate=own["draw"], text="", draw="")
    rows = [
        {"unit": unit, "criterion": criterion, **row}
        for (unit, criterion), rows in own.groupby(["unit", "criterion"])
        for row in _rows(rows)
    ]
    found = pd.DataFrame(rows, columns=[*COLUMNS[:-1], "p"])
    corrected = found.groupby("unit")["p"].transform(lambda p: holm(p.to_numpy(dtype=float)))
    found = found.assign(p_holm=corrected)[COLUMNS]
    return found.sort_values(["unit", "difference"], ascending=[True, False], kind="stable").reset_index(drop=True)


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
    for (unit, text, criterion), read in own.groupby(["unit", name_of(own["text"]), "criterion"]):
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
    return own.astype({"criterion": str, "unit": str, "draw": str, "text": str})


def _kept(items: pd.DataFrame, criterion: str) -> float:
    return float(pooled(items, criterion)["kept"].iloc[0])


def _rows(items: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield a row for each further text of one criterion."""
    first, *others = sorted(items["read"].unique())
    for other in others:
        both = items[items["read"].isin((first, other))]
        shared = both[both.groupby(_PLACE, observed=True)["read"].transform("nunique") == 2]
        if shared.empty:
            continue
        means = pooled(shared.assign(criterion=shared["read"]), first).set_index("criterion")
        row = means.loc[other, ["cells", "kept", "difference", "low", "high", "p"]].to_dict()
        yield row | {"text": other, "against": first, "kept_against": means.loc[first, "kept"]}
