"""Demoted or erased: where the gold answers stand that a pruned model no longer generates.

A pruned model that generates a wrong answer may still prefer the right one when it is asked the same question by
multiple choice, and may still rank its next token among the likeliest ("The Benchmark Illusion", arXiv 2606.17609).
"""

from __future__ import annotations

import math

import pandas as pd

from pipeline.evaluate.fidelity import HIGH, IN_REACH
from pipeline.evaluate.intervals import Interval, wilson
from pipeline.evaluate.suite import GENERATIVE, MULTIPLE_CHOICE
from pipeline.evaluate.verdict import KEPT, verdict
from pipeline.tables.read import Tables
from pipeline.tables.replicates import REPLICATE
from pipeline.tables.variants import VARIANT, Variant, variants_of

_COUNTS = ["n", "dense_right", "lost", "lost_ranked", f"lost_within_{HIGH}", f"lost_within_{IN_REACH}"]
_COUNTS += ["lost_twins", "lost_twins_right"]
COLUMNS = ["asked", "dense_right", "lost", "ranked", "high", "high_low", "high_high", "reach", "beyond"]
COLUMNS += ["beyond_low", "beyond_high", "twins", "twin", "twin_low", "twin_high", "chance"]


def demotion(tables: Tables) -> pd.DataFrame:
    """Count over the generation tasks of each variant which lost answers are demoted, and which are erased.

    An item is lost where dense generates the right answer and the variant does not. Replicates are averaged, as if they
    were asked the items of one of them: repeating does not add items.

    Returns:
        `VARIANT` and `COLUMNS`, one row a variant that has lost an item: numbers of items ``asked``, ``dense_right``,
        ``lost``, ``ranked`` (lost, with a gold token that has a rank) and ``twins`` (lost, asked by multiple choice as
        well); shares of ``ranked`` whose gold token has a rank up to 5 (``high``), from 6 to 50 (``reach``) and
        ``beyond``; the share of ``twins`` that is right (``twin``), and that of guessing (``chance``). Intervals over
        items are Wilson's, 95 %.
    """
    rows = tables.fidelity
    rows = rows[rows["kind"] == GENERATIVE] if not rows.empty else rows
    if rows.empty:
        return pd.DataFrame(columns=[*VARIANT, *COLUMNS])
    by_variant = rows.groupby(VARIANT, sort=False)
    counts = by_variant[_COUNTS].sum().div(by_variant[REPLICATE].nunique(), axis=0)
    chance = _chance(tables)
    found = [
        (*variant, *_shares(counts.loc[tuple(variant)]), chance)
        for variant in variants_of(rows)
        if counts.loc[tuple(variant), "lost"] > 0
    ]
    return pd.DataFrame(found, columns=[*VARIANT, *COLUMNS])


def _shares(counts: pd.Series) -> tuple[float, ...]:
    asked, right, lost, ranked, high, reach, twins, twins_right = (float(counts[name]) for name in _COUNTS)
    first, last, twin = _share(high, ranked), _share(ranked - reach, ranked), _share(twins_right, twins)
    between = (reach - high) / ranked if ranked else math.nan
    return asked, right, lost, ranked, *first, between, *last, twins, *twin


def _share(part: float, whole: float) -> Interval:
    return wilson(part, whole) if whole else Interval(math.nan, math.nan, math.nan)


def _chance(tables: Tables) -> float:
    compared = tables.comparisons
    rows = compared[compared["kind"] == MULTIPLE_CHOICE] if not compared.empty else compared
    return float(rows["chance"].mean()) if len(rows) else math.nan


def sentence(found: pd.DataFrame) -> str:
    """Say of the variant that lost most answers what share of them is still high in rank; empty without any."""
    ranked = found[found["ranked"] > 0]
    if ranked.empty:
        return ""
    row = ranked.loc[ranked["lost"].idxmax()]
    name = Variant(*row[VARIANT]).label
    said = (
        f"{name} has the most lost answers here, {row['lost']:.0f}. Of the {row['ranked']:.0f} that leave the right "
        f"answer at a token, {percent_of(row, 'high')} still have that token among the {HIGH} likeliest, and "
        f"{percent_of(row, 'beyond')} have it beyond rank {IN_REACH}"
    )
    if row["twins"]:
        said += f"; asked by multiple choice, it gets {percent_of(row, 'twin')} of the lost answers right"
    return f"{said}. {_verdict(row)}"


def _verdict(row: pd.Series) -> str:
    high, beyond = (
        verdict(Interval(*(row[each] for each in (name, f"{name}_low", f"{name}_high"))), 1 / 2)
        for name in ("high", "beyond")
    )
    if high == KEPT:
        return "Most are demoted, not erased."
    if beyond == KEPT:
        return "Most are erased."
    return "Neither demoted nor erased answers are clearly the majority."


def percent_of(row: pd.Series, name: str) -> str:
    """Return a share of a row of `demotion` with its interval, in percent: "79 % [73, 84]"."""
    value, low, high = (100 * row[each] for each in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"
