"""Headline of the report: what each variant retains of generation and of multiple choice, the largest gap first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.analysis.effects import Effect, Retained, effects, kind_name, sentence, without_shares
from pipeline.report.changes import Change, mean_changes
from pipeline.report.table import NONE, Cell, Column, Table, minus, plain_table, with_interval
from pipeline.tables.read import Tables
from pipeline.tables.variants import Variant

FULL_TONE = 40.0  # percentage points at which a tint is deepest
MOST = 6  # sentences that are not folded
NOTE = (
    "Retained: the share of the dense model's score above chance that is left, in the mean over the tasks: 0 % is "
    "guessing, 100 % the dense model. The largest gap between kinds of task comes first."
)


@dataclass(frozen=True)
class Answer:
    """Parts of the headline; all of them empty without scores of dense and pruned models.

    Attributes:
        sentences: the effects with the largest gaps.
        more: those of the other variants.
        note: what is retained of what.
        table: the same with intervals, and the scores.
    """

    sentences: tuple[str, ...]
    more: tuple[str, ...]
    note: str
    table: Table | None


def answer(tables: Tables) -> Answer:
    """Answer "does pruning retain generation and multiple choice?" from the means over tasks."""
    found = effects(tables.comparisons)
    if not found:
        return Answer((), (), "", None)
    told = [*(sentence(effect) for effect in found if effect.known), *without_shares(found)]
    said = [each.replace(" %", "\u00a0%") for each in told]
    return Answer(tuple(said[:MOST]), tuple(said[MOST:]), NOTE, _table(found, mean_changes(tables)))


def _table(found: list[Effect], changes: Mapping[str, Mapping[Variant, Change]]) -> Table:
    columns = [Column("variant", words=True)]
    for kind in changes:
        columns += [Column("retained", "%", kind_name(kind)), Column("score", "%", kind_name(kind))]
    rows = []
    for place, effect in enumerate(found):
        retained = {own.kind: own for own in effect.kinds}
        cells = [Cell(effect.variant.label, place)]
        for kind, by in changes.items():
            there = kind in retained and effect.variant in by
            cells += [_retained(retained[kind]), _score(by[effect.variant])] if there else [Cell(NONE), Cell(NONE)]
        rows.append(tuple(cells))
    caption = (
        "Retained: with its 95% interval. Score: the mean, dense → pruned; below it, the difference in percentage "
        "points with its 95% confidence interval (both models on the same items), and the verdict."
    )
    return plain_table(caption, columns, rows)


def _retained(own: Retained) -> Cell:
    if not own.known:
        return Cell(NONE)
    ends = (minus(f"{100 * end:.0f}") for end in (own.low, own.high))
    limits = f"[{', '.join(ends)}]" if math.isfinite(own.low) and math.isfinite(own.high) else ""
    return Cell(minus(f"{100 * own.share:.0f}"), 100 * own.share, limits)


def _score(change: Change) -> Cell:
    text = f"{change.dense:.1f} → {change.pruned:.1f}"
    note = f"{with_interval(change.difference, change.low, change.high)}, {change.verdict}"
    return Cell(minus(text), change.difference, note, tone_of(change.difference))


def tone_of(difference: float) -> float:
    """Return the tint of a difference in percentage points."""
    return max(-1.0, min(1.0, difference / FULL_TONE))
