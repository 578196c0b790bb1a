"""Headline of the report: the changes of generation and of multiple choice, in words and with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report.changes import Change, kind_name
from pipeline.report.table import Cell, Column, Table, minus, with_interval
from pipeline.tables.variants import Variant, ordered

MEASURED = "generative"
CHOSEN = "multiple_choice"
FULL_TONE = 40.0  # percentage points at which a tint is deepest
Changes = Mapping[str, Mapping[Variant, Change]]


@dataclass(frozen=True)
class Count:
    """Number of variants that keep one kind of task, and of those that too few items or no signal leave undecided."""

    kind: str
    kept: int
    undecided: int
    of: int

    @property
    def word(self) -> str:
        if self.undecided == self.of:
            return "inconclusive"
        if self.kept in (0, self.of - self.undecided):
            return "always retained" if self.kept else "never retained"
        return "mostly retained" if 2 * self.kept >= self.of - self.undecided else "rarely retained"

    @property
    def text(self) -> str:
        """Rest of the sentence after the kind."""
        if self.undecided == self.of:
            return f"inconclusive ({self.of} of {self.of})"
        return f"{self.word} ({self.kept} of {self.of}{f', {self.undecided} inconclusive' if self.undecided else ''})"


@dataclass(frozen=True)
class Answer:
    """Parts of the headline; all of them empty without scores of dense and pruned models."""

    lead: str
    counts: tuple[Count, ...]
    sentences: tuple[str, ...]
    table: Table | None


def answer(found: Changes) -> Answer:
    """Answer "does pruning keep generation and multiple choice?" from the changes of the mean scores."""
    found = {kind: by for kind, by in found.items() if by}
    counts = tuple(_count(kind, list(by.values())) for kind, by in found.items())
    if not counts:
        return Answer("", (), (), None)
    lead = "; ".join(f"{count.kind} is {count.text}" for count in counts)
    return Answer(f"{lead[0].upper()}{lead[1:]}.", counts, _sentences(found), _table(found))


def _count(kind: str, found: list[Change]) -> Count:
    undecided = sum(not change.kept and not change.lowered for change in found)
    return Count(kind_name(kind), sum(change.kept for change in found), undecided, len(found))


def _sentences(found: Changes) -> tuple[str, ...]:
    """Return sentences on which variants keep both, one or neither of the two kinds, and which are inconclusive."""
    if not {MEASURED, CHOSEN} <= set(found):
        return ()
    cases = {
        (False, True): "Multiple choice is retained, generation is not",
        (True, True): "Both are retained",
        (True, False): "Generation is retained, multiple choice is not",
        (False, False): "Neither is retained",
    }
    named: dict[tuple[bool, bool] | None, list[str]] = {}
    for variant in ordered(set(found[MEASURED]) & set(found[CHOSEN])):
        pair = found[MEASURED][variant], found[CHOSEN][variant]
        decided = all(change.kept or change.lowered for change in pair)
        named.setdefault((pair[0].kept, pair[1].kept) if decided else None, []).append(variant.label)
    sentences = [f"{words}: {', '.join(named[case])}." for case, words in cases.items() if case in named]
    if None in named:
        sentences.append(f"Inconclusive on these items for one or both: {', '.join(named[None])}.")
    return tuple(sentences)


def _table(found: Changes) -> Table:
    variants = ordered({variant for by in found.values() for variant in by})
    columns = [Column("variant", words=True), *(Column(kind_name(kind)) for kind in found)]
    rows = []
    for place, variant in enumerate(variants):
        cells = [_cell(by[variant]) if variant in by else Cell("–") for by in found.values()]
        rows.append((Cell(variant.label, place), *cells))
    caption = (
        "Mean score in percent, dense → pruned; below it, the difference in percentage points with its 95% confidence "
        "interval (both models on the same items), and the verdict."
    )
    return Table(caption, tuple(columns), tuple(rows))


def _cell(change: Change) -> Cell:
    text = f"{change.dense:.1f} → {change.pruned:.1f}"
    note = f"{with_interval(change.difference, change.low, change.high)}, {change.words}"
    return Cell(minus(text), change.difference, note, tone_of(change.difference))


def tone_of(difference: float) -> float:
    """Return the tint of a difference in percentage points."""
    return max(-1.0, min(1.0, difference / FULL_TONE))
