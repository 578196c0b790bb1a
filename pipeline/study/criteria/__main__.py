"""``python -m pipeline.study.criteria``: compares pruning criteria over all models, budgets, texts and tasks at hand.

Reads the jobs of ``experiment=fig28`` and its like in an outputs folder, and tables that earlier runs have kept. Prints
what each criterion retains, the difference to a reference with an interval over items and draws of text, Holm's
correction for several comparisons, and what the choice cost; draws it, and keeps the tables.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.analysis.pooled_criteria import pooled
from pipeline.common.arguments import Arguments
from pipeline.common.quiet import quiet_libraries
from pipeline.common.terminal import show_table
from pipeline.config.choices import nearest
from pipeline.plot.base import Selection
from pipeline.plot.command import status_of
from pipeline.plot.one_figure import write
from pipeline.study.criteria import figure
from pipeline.study.criteria.cells import (
    COSTS,
    EVALUATION,
    KEYS,
    SEARCH,
    cells_of,
    costs_of,
    in_every_text,
    merged,
    named,
    save,
    several,
)
from pipeline.study.criteria.texts import texts_compared
from pipeline.tables.load import load
from pipeline.tables.stored import MissingData, NoTables

CELLS, SEARCHES = "cells.parquet", "costs.parquet"
# What the others are compared with, for each kind of unit.
REFERENCES = {
    "attention": "divergence",
    "mlp": "divergence_mlp",
    "sublayer": "divergence_joint",
    "block": "divergence_blocks",
    "weight": "wanda_divergence",
}
_UNIT = 100.0


class UnknownCriterion(ValueError):
    """Error for a reference that no job has; the message has the nearest one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, 1 without anything to compare, 2 for what it does not know."""
    quiet_libraries()
    parser = Arguments(prog="python -m pipeline.study.criteria", description=f"{__doc__}")
    parser.add_argument("--kept", metavar="DIR", type=Path, help="read the tables kept there, too, and add to them")
    parser.add_argument("--kind", default="generative", help="generative (the default), multiple_choice or retrieval")
    parser.add_argument(
        "--against", metavar="CRITERION[,…]", default="", help="compare with these where they are, not with divergence"
    )
    parser.add_argument(
        "--from-item", metavar="N", type=int, default=0, help="judge by the items of each task from this one on"
    )
    chosen = parser.parse_args(arguments)
    against = [name for name in chosen.against.split(",") if name]
    return status_of(
        lambda: _compare(chosen.outputs, chosen.kept, chosen.kind, against, chosen.from_item),
        "cannot compare",
        UnknownCriterion,
    )


def _compare(outputs: Path, kept: Path | None, kind: str, against: Sequence[str], from_item: int) -> int:
    folder = kept or outputs / "criteria"
    try:
        tables = load(outputs)
        cells, costs = cells_of(tables), costs_of(tables, outputs)
    except NoTables:
        if kept is None or not (kept / CELLS).is_file():
            raise
        cells, costs = pd.DataFrame(columns=KEYS), pd.DataFrame(columns=COSTS)
    cells = merged(folder / CELLS, cells, KEYS, EVALUATION)
    costs = merged(folder / SEARCHES, costs, SEARCH)
    # Among all cells: that no later item was asked does not make a name unknown.
    there = sorted(set(cells["criterion"]))
    if absent := [name for name in against if name not in there]:
        raise UnknownCriterion(f"no job of {absent[0]} was evaluated; {nearest(absent[0], there)}")
    judged, searches = named(cells[cells["item"] >= from_item], costs)
    found = compared(judged, kind, against)
    # First, so that a screen that is closed loses nothing.
    save(cells, folder / CELLS)
    save(costs, folder / SEARCHES)
    for (unit, text), rows in found.groupby(["unit", "text"], sort=False):
        spending = spent(searches, str(unit), str(text))
        _show(str(unit), str(text), rows.merge(spending, on="criterion", how="left"))
    for unit, rows in texts_compared(judged, kind).groupby("unit", sort=False):
        _show_texts(str(unit), rows)
    selection = Selection("Criteria over all models and budgets", figure.data_of(found), _notes(found, from_item))
    print(f"figure: {write(folder, 'criteria', selection, figure.draw)}")
    return 0


def compared(cells: pd.DataFrame, kind: str, against: Sequence[str] = ()) -> pd.DataFrame:
    """Return the pooled criteria of every kind of unit and ``text`` that has its reference and another criterion.

    The items are those of `named`. Cells with one criterion alone are left out. A unit's reference is the first of
    ``against`` that was run for it, and otherwise that of `REFERENCES`.

    Raises MissingData if there is none.
    """
    own = in_every_text(cells[(cells["kind"] == kind) & cells["solved"].astype(bool)])
    parts = []
    for (unit, text), rows in own.groupby(["unit", "read"], observed=True):
        rows = several(rows)
        criteria = set(rows["criterion"])
        reference = next((name for name in against if name in criteria), REFERENCES.get(str(unit), ""))
        if reference in criteria and rows["criterion"].nunique() > 1:
            parts.append(pooled(rows, reference).assign(unit=unit, text=text))
    if not parts:
        wanted = ", ".join(against or REFERENCES.values())
        raise MissingData(
            f"nothing to compare: of {kind} tasks that the dense model solves, no unit has both a reference ({wanted}) "
            "and another criterion; run python -m pipeline.main -m experiment=fig28"
        )
    return pd.concat(parts, ignore_index=True)


def spent(costs: pd.DataFrame, unit: str, text: str) -> pd.DataFrame:
    """Return what criteria cost to choose after reading a text, as the median over its draws, from costs of `named`.

    That is at the largest budget that several pruners were run at, of the model with most runs: another model's largest
    budget is not the same work. What was not run there has the cost of its own largest budget, named in ``spent_at``.
    ``seconds`` are those of this and all smaller budgets that the same commit was run at, since searches go on.
    """
    own = costs[(costs["unit"] == unit) & costs["read"].isin(("", text))].astype(
        {"model": str, "criterion": str, "commit": str, "forward_tokens": float, "seconds": float}
    )
    if own.empty:
        return own[["criterion", "forward_tokens", "seconds"]].assign(spent_at="")
    own = own[own["model"] == own["model"].mode().iloc[0]]
    size, pruner = own["sparsity"].astype(float), own["criterion"].str.partition(",")[0]
    shared = size[pruner.groupby(size).transform("nunique") > 1]
    common = (shared if len(shared) else size).max()
    own = own.assign(size=size).sort_values("size", kind="stable")
    search = [own[key] for key in ("text", "draw", "criterion", "commit")]
    own["seconds"] = own["seconds"].fillna(0.0).groupby(search, observed=True).cumsum().where(own["seconds"].notna())
    at = own["size"].where(own["size"] <= common).groupby(own["criterion"]).transform("max")
    found = own[own["size"] == at].assign(spent_at=own["sparsity"].astype(str).where(at < common, ""))
    return found.groupby(["criterion", "spent_at"])[["forward_tokens", "seconds"]].median().reset_index()


def _show(unit: str, text: str, rows: pd.DataFrame) -> None:
    told = []
    for row in rows.itertuples():
        more = "" if pd.isna(row.difference) else _interval(row.difference, row.low, row.high, "+.1f")
        told.append(
            [
                row.criterion, row.cells, row.items, row.draws or None,
                _interval(row.kept, row.kept_low, row.kept_high, ".1f"),
                more, p_words(row.p_holm), _whole(row.items_to_tell), *costs_of_row(row),
            ]
        )  # fmt: skip
    reference = next((str(name) for name in rows["against"].dropna()), "")
    columns = ["criterion", "cells", "items", "draws of text", "kept %", f"minus {reference}", "p (Holm)"]
    show_table(
        f"Removing {figure.UNITS[unit]}{f', chosen on {text}' if text else ''}",
        [*columns, "items to tell", "tokens", "seconds"],
        told,
        "kept: of the dense score above chance, mean over cells (model, tasks, text, budget); draws of a text are "
        "averaged. Intervals: 95 %, over items and draws of the text; a row with one draw is lent how far draws of the "
        "others differ. Differences: p is corrected for all rows (Holm), and each interval excludes 0 where p does. "
        "items to tell: how many would tell the difference from zero in four of five repetitions. tokens: sent through "
        "the model to choose at the largest budget; seconds: of the processor, to choose at all budgets; both of the "
        "model with most runs; 'at 6': at that budget, where the criterion was not run at the largest.",
    )


def costs_of_row(row: Any) -> list[str]:
    """Return the tokens and seconds of a row of `spent`, with their budget where it is not that of the others."""
    at = f" at {row.spent_at}" if isinstance(row.spent_at, str) and row.spent_at else ""
    return ["" if pd.isna(value) else f"{value:,.0f}{at}" for value in (row.forward_tokens, row.seconds)]


def _show_texts(unit: str, rows: pd.DataFrame) -> None:
    told = []
    for row in rows.itertuples():
        kept = [f"{_UNIT * value:.1f}" for value in (row.kept, row.kept_against)]
        more = _interval(row.difference, row.low, row.high, "+.1f")
        told.append([row.criterion, row.text, row.against, int(row.cells), *kept, more, p_words(row.p_holm)])
    show_table(
        f"What the text adds, removing {figure.UNITS[unit]}",
        ["criterion", "text", "against", "cells", "kept %", "kept % against", "difference", "p (Holm)"],
        told,
        "The same criterion at the same budgets, judged on the same items, after reading one text or the other.",
    )


def p_words(p: float) -> str:
    """Return a p with three digits; empty where nothing was tested."""
    return "" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _whole(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None


def _interval(value: float, low: float, high: float, form: str) -> str:
    return f"{_UNIT * value:{form}} [{_UNIT * low:{form}}, {_UNIT * high:{form}}]"


def _notes(found: pd.DataFrame, from_item: int) -> tuple[str, ...]:
    draws = int(found["draws"].max())
    judged = (f"Judged by items {from_item} and later of each task, counted from 0.",) if from_item else ()
    over = f"items and up to {draws} draws of the text" if draws > 1 else "items"
    return (
        "Retained: share of the dense model's score above chance, mean over models, tasks and budgets; 100% is "
        "the dense model.",
        f"Intervals: 95%, over {over}; those of differences exclude 0 where their p does, which is corrected for all "
        "of a panel (Holm): filled. Each panel names the units and the text; intervals that leave it are cut.",
        *judged,
    )


if __name__ == "__main__":
    sys.exit(main())
