"""Advice from measurements and predictions: thresholds, a recommendation, and the data of the table and the figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pipeline.evaluate.intervals import Interval
from pipeline.evaluate.verdict import verdict
from pipeline.plot.base import Selection
from pipeline.study.advice.figure import COLUMNS, MEASURED, PREDICTED, UNITS
from pipeline.study.advice.judged import Judged, judge
from pipeline.study.advice.ladder import Kept, Recommended, Rung, Threshold, recommend, threshold

# Names of the kinds of task for readers.
NAMES = {"generative": "generation", "multiple_choice": "multiple choice", "retrieval": "retrieval"}


@dataclass(frozen=True)
class Findings:
    """Data on which the advice rests.

    ``rungs`` are each pruner's sparsities without scores, ``units`` the kind of unit that each removes, ``parameters``
    the number of parameters of the dense model, ``halves`` what is measured on each half of what is ``divided``
    ("items" or "task families"), ``settings`` the line under which all jobs can be compared, and ``basis`` a sentence
    on what predictions rest on.
    """

    model: str
    keep: float
    kinds: tuple[str, ...]
    rungs: Mapping[str, Sequence[Rung]]
    units: Mapping[str, str]
    measured: Kept
    predicted: Kept
    halves: tuple[Kept, Kept] = ({}, {})
    divided: str = "items"
    parameters: int = 0
    settings: str = ""
    basis: str = ""

    def ladder(self, pruner: str, kinds: Sequence[str]) -> list[Rung]:
        """Return a pruner's rungs with the least share retained over several kinds of task."""
        return [
            rung._replace(
                measured=worst([self.measured.get((pruner, rung.sparsity), {}).get(kind) for kind in kinds]),
                predicted=worst([self.predicted.get((pruner, rung.sparsity), {}).get(kind) for kind in kinds]),
            )
            for rung in self.rungs[pruner]
        ]

    def ladders(self) -> dict[str, list[Rung]]:
        """Return the rungs of all pruners, by the worst of all kinds of task."""
        return {pruner: self.ladder(pruner, self.kinds) for pruner in self.rungs}

    def thresholds(self) -> Iterator[tuple[str, str, Threshold]]:
        """Yield each kind of task and pruner with how far the pruner can go."""
        for kind in self.kinds:
            for pruner in self.rungs:
                yield kind, pruner, threshold(self.ladder(pruner, [kind]), self.keep)

    def recommended(self) -> list[Recommended]:
        """Return the best rung of all and, if that only zeroes weights, the best of pruners that remove whole units."""
        first = recommend(self.ladders(), self.keep)
        if first is None:
            return []
        second = recommend(self.of_units().ladders(), self.keep) if self.units[first.pruner] == "weight" else None
        return [first, *([second] if second else [])]

    def of_units(self) -> Findings:
        """Return the findings on pruners that remove whole units."""
        return replace(self, rungs={name: own for name, own in self.rungs.items() if self.units[name] != "weight"})

    def judged(self) -> Judged | None:
        """Return what the best of all evaluated rungs retains on items that did not choose it."""
        return judge(lambda half: replace(self, measured=half, predicted={}).ladders(), self.halves, self.keep)


def worst(kept: Sequence[Interval | None]) -> Interval | None:
    """Return the minimum over several kinds, in value and limits, or None if one of them is not known."""
    there = [interval for interval in kept if interval is not None]
    if not there or len(there) < len(kept):
        return None
    return Interval(*(min(numbers) for numbers in zip(*there, strict=True)))


# --- in words ----------------------------------------------------------------------------------------------------


def heading(findings: Findings) -> str:
    size = f" ({_count(findings.parameters)} parameters)" if findings.parameters else ""
    return f"How far {findings.model}{size} can be pruned and still retain {findings.keep:g} of {tasks_of(findings)}"


def tasks_of(findings: Findings) -> str:
    *names, last = (NAMES[kind] for kind in findings.kinds)
    return f"{', '.join(names)} and {last}" if names else last


def table_rows(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the table: up to where estimates are at least `keep`, and where they are less."""
    several = len(findings.kinds) > 1
    columns = ["pruner", "unit", *(["task kind"] if several else []), "estimated at least that up to", "removed"]
    columns += ["retained", "estimated less at", "retained there"]
    rows = []
    for kind, pruner, found in findings.thresholds():
        own = [pruner, UNITS[findings.units[pruner]], *([NAMES[kind]] if several else [])]
        known = any(rung.kept is not None for rung in findings.ladder(pruner, [kind]))
        last, below = ("not even the lowest", "none tried") if known else ("unknown", "unknown")
        there = found.last and [found.last.sparsity, _size(found.last, findings), _kept(found.last, findings)]
        own += there or [last, "", ""]
        own += [found.below.sparsity, _kept(found.below, findings)] if found.below else [below, ""]
        rows.append(own)
    return columns, rows


def sentences(findings: Findings) -> list[str]:
    """Return sentences on what is recommended and why, or on why nothing is."""
    found = findings.recommended()
    if not found:
        return [
            f"Nothing is recommended: no setting is estimated to retain {findings.keep:g} of {tasks_of(findings)}; "
            "give a smaller keep=..., or other pruners=[...]"
        ]
    said = [f"Recommended: {_said(found[0], findings)} {_judged(findings)}"]
    if len(found) > 1:
        said.append(
            "Zeroing weights makes a model neither smaller nor faster. The best choice that removes whole units: "
            f"{_said(found[1], findings)} {_judged(findings.of_units())}"
        )
    return said


def _said(one: Recommended, findings: Findings) -> str:
    return (
        f"{one.pruner} at {one.rung.sparsity} removes {_size(one.rung, findings)} of the parameters and retains "
        f"{_kept(one.rung, findings)}, of {tasks_of(findings)}."
    )


def _judged(findings: Findings) -> str:
    """Say what the choice retains on items that did not choose it, or that this is not known."""
    found = findings.judged()
    if found is None:
        return f"That interval does not count the choosing, and no half of the {findings.divided} chooses by itself."
    names = list(dict.fromkeys(f"{pruner} at {sparsity}" for pruner, sparsity in found.chosen))
    ways = "both ways" if len(found.chosen) > 1 else "one way, since the other half chooses nothing"
    return (
        f"That interval does not count the choosing. Chosen among evaluated settings on one half of the "
        f"{findings.divided} and judged on the other, {ways} ({' and '.join(names)}): "
        f"{_share(found.retained, findings.keep)}."
    )


def _size(rung: Rung, findings: Findings) -> str:
    if rung.removed is None or not findings.parameters:
        return "unknown"
    return f"{_count(rung.removed)} ({rung.removed / findings.parameters:.1%})"


def _count(number: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def _kept(rung: Rung, findings: Findings) -> str:
    """Format the retained share with its interval and verdict, and whether it was measured or predicted."""
    if rung.kept is None:
        return "unknown"
    source = MEASURED if rung.measured is not None else PREDICTED
    return f"{source} {_share(rung.kept, findings.keep)}"


def _share(kept: Interval, keep: float) -> str:
    return f"{kept.value:.2f} [{kept.low:.2f}, {kept.high:.2f}], {verdict(kept, keep)}"


# --- as data -----------------------------------------------------------------------------------------------------


def selection(findings: Findings) -> Selection:
    """Return the data of the figure: a row for each setting, kind of task and source."""
    rows = [
        [
            kind, pruner, rung.sparsity, UNITS[findings.units[pruner]], source, rung.removed,
            100 * rung.removed / findings.parameters, *(100 * number for number in kept), 100 * findings.keep,
        ]
        for kind in findings.kinds
        for pruner in findings.rungs
        for rung in findings.ladder(pruner, [kind])
        for source, kept in ((MEASURED, rung.measured), (PREDICTED, rung.predicted))
        if kept is not None and rung.removed is not None and findings.parameters
    ]  # fmt: skip
    notes = [
        "Retained: (pruned − chance) / (dense − chance). Points: evaluated, with 95% intervals (Fieller), both models "
        "on the same items.",
        *([findings.basis] if findings.basis else []),
        f"Settings: {findings.settings}.",
    ]
    return Selection(heading(findings), pd.DataFrame(rows, columns=COLUMNS), tuple(notes))
