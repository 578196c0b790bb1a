"""Findings of the comparison of criteria, from the tables that its runs have kept in docs/."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.analysis.pooled_criteria import retained
from pipeline.evaluate.intervals import Interval
from pipeline.evaluate.suite import GENERATIVE
from pipeline.evaluate.verdict import LESS, MARGIN, MORE, UNDECIDED, direction
from pipeline.study.criteria.__main__ import CELLS, REFERENCES, SEARCHES, compared, costs_of_row, p_words, spent
from pipeline.study.criteria.cells import SEARCH, STAGES, in_every_text, named, several
from pipeline.study.criteria.texts import draws_compared, texts_compared
from pipeline.study.findings.source import Measured, NoResults, Source
from pipeline.study.findings.table import ROOT, Grid, Value, listed

KEPT = ROOT / "docs" / "data" / "criteria"
# For each kind of unit and text, the criterion that keeps the most over all cells, or for weights equal shares; then
# the one that docs/pruners.md recommends, if it is another: the others are compared with each.
RECOMMENDED = {
    ("attention", "shots"): ("divergence", "divergence, lazy True"),
    ("attention", "news"): ("attn_drop",),
    ("block", "shots"): ("perplexity_blocks",),
    ("block", "news"): ("perplexity_blocks",),
    ("weight", "shots"): ("wanda",),
    ("weight", "news"): ("wanda",),
}
CHANCE = "random_"
# Seconds of one run each tell no smaller ratio.
_ABOUT = 1.2
# Items of each task that had been looked at when criteria were first recommended; later ones judge them anew.
SEEN = 24
FOLD = "python -m pipeline.study.criteria --kept docs/data/criteria"
COMMAND = "python -m pipeline.study.findings compared"


def kept_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the kept items and costs, with the names of their texts. Raises NoResults without tables."""
    if not (KEPT / CELLS).is_file():
        raise NoResults(f"{KEPT} has no tables; run experiment=fig28, then `{FOLD}`")
    return named(pd.read_parquet(KEPT / CELLS), pd.read_parquet(KEPT / SEARCHES))


def read(outputs: Path) -> Measured:
    """Return a table of the criteria for each kind of unit and text, and what was compared.

    Raises NoResults without tables.
    """
    cells, costs = kept_tables()
    compared_texts = {text for _, text in RECOMMENDED}
    cells, costs = (rows[rows["read"].isin({"", *compared_texts})] for rows in (cells, costs))
    values: dict[str, Value] = {}
    everywhere = in_every_text(cells)
    for (unit, text), own in everywhere.groupby(["unit", "read"], sort=False, observed=True):
        place = f"{unit}_{text}"
        own = several(own)
        there, wanted = set(own["criterion"]), RECOMMENDED.get((str(unit), str(text)), ())
        reference = next((name for name in (*wanted, REFERENCES[str(unit)]) if name in there), None)
        if reference is None:
            continue
        against = [reference]
        rows = compared(own, GENERATIVE, against)
        rows = rows.merge(spent(costs, str(unit), str(text)), on="criterion", how="left")
        values[place] = table(rows)
        values[f"{place}_said"] = said(rows)
        values[f"{place}_cheapest"] = cheapest(rows)
        if wanted[1:] and wanted[-1] in there - {reference}:
            values[f"{place}_recommended"] = table(compared(own, GENERATIVE, wanted[-1:]))
        for model, budgets in own.groupby("model", sort=False, observed=True)["sparsity"]:
            values[f"{place}_{model}_budgets"] = listed(sorted(set(budgets.astype(str)), key=float))
        values[f"{place}_by_budget"] = _budgets_table(own)
        if own["model"].nunique() > 1:
            values[f"{place}_models"] = _models_table(own, against)
        unseen = own[own["item"] >= SEEN]
        if reference in set(unseen["criterion"]) and unseen["criterion"].nunique() > 1:
            values[f"{place}_unseen"] = table(compared(unseen, GENERATIVE, against))
            values[f"{place}_unseen_items"] = str(unseen.groupby(["task", "item"], observed=True).ngroups)
    for unit, own in cells.groupby("unit", sort=False, observed=True):
        texts = texts_compared(own, GENERATIVE)
        if len(texts):
            values[f"{unit}_texts"] = _texts_table(texts)
    draws = draws_compared(cells, GENERATIVE)
    for (unit, text), rows in draws.groupby(["unit", "text"], sort=False):
        values[f"{unit}_{text}_draws"] = _draws_table(rows)
    values["evolution_found"] = same_units(costs, "evolution, generations 50", "divergence")
    runs = costs.astype({"started": str, "commit": str}).sort_values("started")
    commits = dict.fromkeys(runs["commit"].str[:7])
    stages = {name: int(costs[name].min()) for name in STAGES if costs[name].notna().any()}
    return Measured(values, stages, " and ".join(commits), runs["started"].iloc[-1][:10])


def said(rows: pd.DataFrame) -> str:
    """Say which criteria keep more or less than the reference by corrected intervals, and which cannot be told."""
    others = rows[rows["against"].notna()]
    reference = f"`{others['against'].iloc[0]}`"
    told = [direction(Interval(row.difference, row.low, row.high)) for row in others.itertuples()]
    parts = {
        MORE: ("more than {} is kept by", "more is kept by"),
        LESS: ("less than {} is kept by", "less is kept by"),
        UNDECIDED: ("these cannot be told from {}:", "these cannot be told from it:"),
    }
    words: list[str] = []
    for word, (first, later) in parts.items():
        if len(own := others[[each == word for each in told]]):
            names = ", ".join(f"`{name}`" for name in own["criterion"])
            words.append(f"{later if words else first.format(reference)} {names}")
    end = "" if (rows["draws"] > 1).any() else " This is after one draw of the text, and says nothing about others."
    return f"{'; '.join(words)}.{end}"


def cheapest(rows: pd.DataFrame) -> str:
    """Name the criterion that takes the fewest seconds of the reference and those that cannot be told from it.

    Of those that take about as long, that is the reference, or else the one that keeps the most. Chance is a control,
    not a criterion; one that was run in fewer cells than the reference is told from it less easily; and one whose mean
    is below it by more than the margin may differ, only with too few draws to tell: none of these counts.
    """
    cells = rows.loc[rows["against"].isna(), "cells"].max()
    told = [direction(Interval(row.difference, row.low, row.high)) for row in rows.itertuples()]
    alike = rows[[word == UNDECIDED for word in told]].dropna(subset="seconds")
    near = alike["against"].isna() | (alike["difference"] >= -MARGIN)
    alike = alike[~alike["criterion"].str.startswith(CHANCE) & (alike["cells"] >= cells) & near]
    alike = alike[alike["seconds"] <= _ABOUT * alike["seconds"].min()]
    if alike.empty:
        return ""
    row = alike.sort_values("difference", ascending=False, na_position="first", kind="stable").iloc[0]
    return f"`{row['criterion']}`, {row['seconds']:,.0f} s"


def same_units(costs: pd.DataFrame, criterion: str, other: str) -> str:
    """Say in how many searches a criterion, given by how its name begins, removed the same units as another one."""
    runs = costs.astype(dict.fromkeys([*SEARCH, "removed"], str))
    own, theirs = runs[runs["criterion"].str.startswith(criterion)], runs[runs["criterion"] == other]
    both = own.drop(columns="criterion").merge(theirs, on=[key for key in SEARCH if key != "criterion"])
    same = [set(row.removed_x.split(", ")) == set(row.removed_y.split(", ")) for row in both.itertuples()]
    return f"{sum(same)} of {len(same)}"


def table(rows: pd.DataFrame) -> Grid:
    """Return a line for each criterion, with what its search cost where the rows say that."""
    costs = ["tokens", "seconds"] if "spent_at" in rows else []
    lines = []
    for row in rows.itertuples():
        less = "" if pd.isna(row.difference) else _interval(row.difference, row.low, row.high, "+.2f")
        kept = _interval(row.kept, row.kept_low, row.kept_high, ".2f")
        tell = f"{row.items_to_tell:,.0f}" if math.isfinite(row.items_to_tell) else ""
        cost = costs_of_row(row) if costs else []
        lines.append(
            [str(row.criterion), str(row.cells), f"{row.draws or ''}", kept, less, p_words(row.p_holm), *cost, tell]
        )
    reference = next((str(name) for name in rows["against"].dropna()), "")
    names = ["criterion", "cells", "draws", "kept", f"minus `{reference}`", "p (Holm)", *costs, "items to tell"]
    return Grid(names, lines)


def _budgets_table(cells: pd.DataFrame) -> Grid:
    """Return what criteria keep at each budget, after reading the first draw of a text; of the model with most runs."""
    own = cells[(cells["kind"] == GENERATIVE) & cells["solved"].astype(bool)].astype(dict.fromkeys(SEARCH, str))
    own = own[(own["model"] == own["model"].mode().iloc[0]) & (own["draw"] == min(own["draw"]))]
    kept = {key: retained(rows).value for key, rows in own.groupby(["criterion", "sparsity"])}
    budgets = sorted(set(own["sparsity"]), key=float)
    lines = [
        [name, *(f"{kept[name, at]:.2f}" if (name, at) in kept else "" for at in budgets)]
        for name in dict.fromkeys(name for name, _ in kept)
    ]
    # By the largest budget, where criteria differ most; those that were not run there come last.
    lines.sort(key=lambda line: float(line[-1] or -1), reverse=True)
    return Grid(["criterion", *budgets], lines)


def _models_table(cells: pd.DataFrame, against: Sequence[str]) -> Grid:
    """Return what each criterion keeps of each model, and its difference to the reference there."""
    models = [str(model) for model in dict.fromkeys(cells["model"])]
    found = {model: compared(cells[cells["model"] == model], GENERATIVE, against) for model in models}
    told = {
        model: {
            str(row.criterion): [
                f"{row.kept:.2f}",
                "" if pd.isna(row.difference) else _interval(row.difference, row.low, row.high, "+.2f"),
            ]
            for row in rows.itertuples()
        }
        for model, rows in found.items()
    }
    names = [name for name in told[models[0]] if all(name in own for own in told.values())]
    columns = [column for model in models for column in (f"kept, {model}", "difference")]
    return Grid(
        ["criterion", *columns], [[name, *(cell for own in told.values() for cell in own[name])] for name in names]
    )


def _texts_table(rows: pd.DataFrame) -> Grid:
    lines = [
        [
            str(row.criterion), f"{row.cells:.0f}", f"{row.kept_against:.2f}", f"{row.kept:.2f}",
            _interval(row.difference, row.low, row.high, "+.2f"), p_words(row.p_holm),
        ]
        for row in rows.itertuples()
    ]  # fmt: skip
    (one, other), *_ = dict.fromkeys(zip(rows["against"], rows["text"], strict=True))
    return Grid(["criterion", "cells", f"kept, `{one}`", f"kept, `{other}`", "difference", "p (Holm)"], lines)


def _draws_table(rows: pd.DataFrame) -> Grid:
    kept = rows.pivot(index="criterion", columns="draw", values="kept")
    kept = kept.loc[kept.mean(axis=1).sort_values(ascending=False).index]
    lines = [
        [str(name), *(f"{value:.2f}" if pd.notna(value) else "" for value in own)]
        for name, own in zip(kept.index, kept.to_numpy(), strict=True)
    ]
    return Grid(["criterion", *map(str, kept.columns)], lines)


def _interval(value: float, low: float, high: float, form: str) -> str:
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


SOURCES = {"compared": Source(COMMAND, read)}
