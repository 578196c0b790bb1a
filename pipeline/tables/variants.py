"""Variants, each one pruner at one sparsity with its options: labels, order, and selection where room is limited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.config.signature import takes_sparsity
from pipeline.config.sparsity import Sparsity, parse
from pipeline.tables.labels import label

DENSE = "dense"
# Columns that identify a variant of a figure.
VARIANT = ["pruner", "sparsity", "options"]
# Order of legends and rows, and priority where there is no room for all; other pruners follow by name.
PRECEDENCE = (
    "shortgpt",
    "attn_drop",
    "mlp_drop",
    "wanda",
    "sparsegpt",
    "magnitude",
    "joint_drop",
    "contiguous",
)


class Variant(NamedTuple):
    """One pruner at one sparsity; the sparsity is spelled as on the command line ("0.2", "2:4", "6").

    ``options`` distinguishes it from other variants shown (`pipeline.tables.labels.option_texts`), and is often empty.
    """

    pruner: str
    sparsity: str
    options: str = ""

    @property
    def label(self) -> str:
        """Label in legends and panel titles."""
        return label(self.pruner, self.sparsity, self.options, takes_sparsity(self.pruner))

    @property
    def short(self) -> str:
        """Label where the pruner is known."""
        return f"{self.sparsity}, {self.options}" if self.options else self.sparsity

    @property
    def line(self) -> str:
        """Label of a line over the sparsities of this pruner with these options."""
        return f"{self.pruner}, {self.options}" if self.options else self.pruner


def drop_name(variant: Variant) -> str:
    """Return the paper's name: Drop-8A for eight attention sublayers, Drop-8M for eight MLPs; else the label."""
    letter = {"attn_drop": "A", "mlp_drop": "M"}.get(variant.pruner)
    if variant.pruner == DENSE:
        return DENSE
    if letter is None or not is_count(variant.sparsity):
        return variant.label
    return label(f"Drop-{variant.sparsity}{letter}", "", variant.options, False)


def drop_notes(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return caption sentences that explain the paper's names in a table."""
    names = {drop_name(variant._replace(options="")) for variant in variants_of(frame)}
    meanings = {"A": "Drop-nA: n attention sublayers dropped.", "M": "Drop-nM: n MLP sublayers dropped."}
    found = {name[-1] for name in names if name.startswith("Drop-")}
    return tuple(text for letter, text in meanings.items() if letter in found)


def canonical(sparsity: str) -> str:
    """Return the canonical spelling of a sparsity: `2of4` becomes `2:4`."""
    return parse(sparsity).given


def is_pattern(sparsity: str) -> bool:
    """Return whether the sparsity is an N:M pattern."""
    return _first(sparsity).kind == "pattern"


def is_count(sparsity: str) -> bool:
    """Return whether the sparsity is a number of blocks or sublayers (zero is not)."""
    return _first(sparsity).kind == "units"


def magnitude(sparsity: str) -> float:
    """Return a number that orders the sparsities of one pruner."""
    first = _first(sparsity)
    return {"pattern": first.n / max(first.m, 1), "units": first.units, "fraction": first.fraction}[first.kind]


def _first(sparsity: str) -> Sparsity:
    """Parse a sparsity, or the first of a list of equivalent ones ("0.2, 0.4")."""
    return parse(sparsity.split(",", maxsplit=1)[0])


def precedence(pruner: str) -> tuple[int, str]:
    """Return the sort key of a pruner."""
    return (PRECEDENCE.index(pruner) if pruner in PRECEDENCE else len(PRECEDENCE)), pruner


def ordered(variants: Iterable[Variant]) -> list[Variant]:
    """Return the variants by pruner, then rising sparsity, fractions before patterns of the same fraction."""

    def key(variant: Variant) -> tuple:
        sparsity = variant.sparsity
        return precedence(variant.pruner), magnitude(sparsity), is_pattern(sparsity), sparsity, variant.options

    return sorted(set(variants), key=key)


def variants_of(frame: pd.DataFrame) -> list[Variant]:
    """Return the variants in a table, ordered."""
    return ordered(Variant(*row) for row in frame[VARIANT].drop_duplicates().itertuples(index=False))


def rows_of(frame: pd.DataFrame, variants: Iterable[Variant]) -> pd.DataFrame:
    """Return the rows of a table that belong to one of the variants."""
    # An index of the three columns would take three times as long.
    columns = [frame[name] for name in VARIANT]
    keep = np.zeros(len(frame), dtype=bool)
    for variant in variants:
        keep |= np.logical_and.reduce([column == word for column, word in zip(columns, variant, strict=True)])
    return frame[keep]


def lowest(variants: Iterable[Variant]) -> list[Variant]:
    """Return each pruner, with each of its options, at its lowest nonzero sparsity (at zero if it has no other)."""
    first: dict[str, Variant] = {}
    for variant in sorted(ordered(variants), key=lambda v: magnitude(v.sparsity) == 0):
        first.setdefault(variant.line, variant)
    return ordered(first.values())


def preferred(variants: Iterable[Variant], words: Sequence[str]) -> list[Variant]:
    """Return each pruner once: at the first of these sparsities that it has, else at its lowest nonzero one."""
    everyone = ordered(variants)
    chosen = {variant.line: variant for variant in lowest(everyone)}
    for word in reversed(words):
        chosen |= {variant.line: variant for variant in everyone if variant.sparsity == word}
    return ordered(chosen.values())


def select_preferred(
    variants: Iterable[Variant], words: Sequence[str], limit: int
) -> tuple[list[Variant], list[Variant]]:
    """Return at most `limit` variants, every pruner's `preferred` one before all others, and the ones left out."""
    everyone = ordered(variants)
    first = preferred(everyone, words)
    queue = first + [variant for variant in everyone if variant not in first]
    return ordered(queue[:limit]), ordered(queue[limit:])


def spread(variants: Iterable[Variant], limit: int) -> tuple[list[Variant], list[Variant]]:
    """Return at most `limit` variants, each pruner's lowest nonzero sparsity before its next, and the ones left out."""
    groups: dict[str, list[Variant]] = {}
    for variant in sorted(ordered(variants), key=lambda v: magnitude(v.sparsity) == 0):
        groups.setdefault(variant.line, []).append(variant)
    turns = [(place, variant) for group in groups.values() for place, variant in enumerate(group)]
    by_turn = [variant for _, variant in sorted(turns, key=lambda turn: turn[0])]
    return ordered(by_turn[:limit]), ordered(by_turn[limit:])
