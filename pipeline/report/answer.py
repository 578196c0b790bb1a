"""The headline: what became of generation and of multiple choice, in words and with standard errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.figures.variants import Variant, ordered
from pipeline.report.changes import Change, kind_name
from pipeline.report.table import Cell, Column, Table, minus, with_error

MEASURED = "generative"
CHOSEN = "multiple_choice"
FULL_TONE = 40.0  # percentage points at which a tint is deepest
Changes = Mapping[str, Mapping[Variant, Change]]


@dataclass(frozen=True)
class Count:
    """How many variants keep one kind of task."""

    kind: str
    kept: int
    of: int

    @property
    def word(self) -> str:
        if self.kept in (0, self.of):
            return "always kept" if self.kept else "never kept"
        return "mostly kept" if 2 * self.kept >= self.of else "seldom kept"


@dataclass(frozen=True)
class Answer:
    """The headline's parts; all of them empty without scores of dense and pruned models."""

    lead: str
    counts: tuple[Count, ...]
    sentences: tuple[str, ...]
    table: Table | None


def answer(found: Changes) -> Answer:
    """The answer to "does pruning keep generation and multiple choice?" from the changes of the mean scores."""
    found = {kind: by for kind, by in found.items() if by}
    counts = tuple(
        Count(kind_name(kind), sum(change.kept for change in by.values()), len(by)) for kind, by in found.items()
    )
    if not counts:
        return Answer("", (), (), None)
    lead = "; ".join(f"{count.kind} is {count.word} ({count.kept} of {count.of})" for count in counts)
    return Answer(f"{lead[0].upper()}{lead[1:]}.", counts, _sentences(found), _table(found))


def _sentences(found: Changes) -> tuple[str, ...]:
    """Which variants keep both, one or neither of generation and multiple choice."""
    if not {MEASURED, CHOSEN} <= set(found):
        return ()
    both = ordered(set(found[MEASURED]) & set(found[CHOSEN]))
    cases = {
        (False, True): "Multiple choice is kept and generation is not",
        (True, True): "Both are kept",
        (True, False): "Generation is kept and multiple choice is not",
        (False, False): "Neither is kept",
    }
    sentences = []
    for (generation, choice), words in cases.items():
        names = [
            variant.label
            for variant in both
            if (found[MEASURED][variant].kept, found[CHOSEN][variant].kept) == (generation, choice)
        ]
        if names:
            sentences.append(f"{words}: {', '.join(names)}.")
    return tuple(sentences)


def _table(found: Changes) -> Table:
    variants = ordered({variant for by in found.values() for variant in by})
    columns = [Column("variant", words=True), *(Column(kind_name(kind)) for kind in found)]
    rows = []
    for place, variant in enumerate(variants):
        cells = [_cell(by[variant]) if variant in by else Cell("–") for by in found.values()]
        rows.append((Cell(variant.label, place), *cells))
    caption = "Mean score in percent, dense → pruned; below it the difference in points ± its standard error."
    return Table(caption, tuple(columns), tuple(rows))


def _cell(change: Change) -> Cell:
    text = f"{change.dense:.1f} → {change.pruned:.1f}"
    note = f"{with_error(change.difference, change.error, '+.1f')}, {change.verdict}"
    return Cell(minus(text), change.difference, note, tone_of(change.difference))


def tone_of(difference: float) -> float:
    """The tint of a difference in percentage points."""
    return max(-1.0, min(1.0, difference / FULL_TONE))
