"""The usable rows of each benchmark, read once per process, and why the others are left out. Needs no lm-eval."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pipeline.evaluate.suites.offline import convert
from pipeline.evaluate.suites.offline.convert import Row
from pipeline.evaluate.suites.offline.options import Defect
from pipeline.evaluate.suites.offline.sources import SOURCES

Converter = Callable[[Row], Row]

_CONVERTERS: dict[str, Converter] = {name: getattr(convert, name) for name in SOURCES}
_EXAMPLE_CONVERTERS: dict[str, Converter] = {"boolq": convert.boolq_joined, "nq_open": convert.nq_open}
# The fields that hold an item's answer; all others make up the question.
_ANSWER_FIELDS = ("answerKey", "label", "answer", "answers")


@dataclass(frozen=True)
class Rows:
    """``usable`` rows as lm-eval takes them, and the numbers of rows left out, by reason."""

    usable: list[Row]
    left_out: Counter[str] = field(default_factory=Counter)

    def summary(self, name: str) -> str:
        """Return a line such as ``mmlu: 2842 of 2850 rows; 8 left out: repeats another row (8)``."""
        left = self.left_out.total()
        text = f"{name}: {len(self.usable)} of {len(self.usable) + left} rows"
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.left_out.most_common())
        return f"{text}; {left} left out: {reasons}" if left else text


def rows(name: str) -> list[Row]:
    """Return the usable rows of a benchmark, in an order that a limit may cut anywhere (see ``usable_rows``)."""
    return checked(name).usable


def checked(name: str) -> Rows:
    """Return the rows of a benchmark, and what was left out. Raises ValueError if its package is not installed."""
    return _read(SOURCES[name].path(), _CONVERTERS[name])


def examples(name: str) -> list[Row]:
    """Return further labelled rows for few-shot examples, none of which is asked; empty if the packages have none."""
    path = SOURCES[name].examples_path()
    if path is None:
        return []
    asked = {_question(row) for row in rows(name)}
    return [row for row in _read(path, _EXAMPLE_CONVERTERS[name]).usable if _question(row) not in asked]


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file, which may be gzip-compressed, without blank ones."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    # Line feeds only: a row may contain other characters that Python takes for line ends.
    return [line for line in text.split("\n") if line.strip()]


def usable_rows(lines: Iterable[str], converter: Converter) -> Rows:
    """Convert JSON lines, leave out those with a defect, and order the rest by a hash of their content.

    The files are ordered by subject, source or passage; after this the first N are a fair sample whatever N is, and
    the same on every machine. Of rows with the same question and options the first stays, or none if their answers
    contradict each other.
    """
    left_out: Counter[str] = Counter()
    groups: dict[str, list[Row]] = {}
    for line in lines:
        try:
            row = _converted(line, converter)
        except Defect as defect:
            left_out[str(defect)] += 1
        else:
            groups.setdefault(_question(row), []).append(row)
    usable = []
    for same in groups.values():
        if _contradict(same):
            left_out["repeats another question with another answer"] += len(same)
        else:
            usable.append(same[0])
            if len(same) > 1:
                left_out["repeats another row"] += len(same) - 1
    return Rows(sorted(usable, key=_place), left_out)


@cache
def _read(path: Path, converter: Converter) -> Rows:
    return usable_rows(lines_of(path), converter)


def _converted(line: str, converter: Converter) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Defect("not JSON") from error
    if not isinstance(row, dict):
        raise Defect("not a JSON object")
    return converter(row)


def _question(row: Row) -> str:
    return json.dumps({key: value for key, value in row.items() if key not in _ANSWER_FIELDS}, sort_keys=True)


def _contradict(same: list[Row]) -> bool:
    """Return whether rows of one question differ in their answer. Lists of answers in people's own words may differ."""
    listed = any(isinstance(same[0].get(name), list) for name in _ANSWER_FIELDS)
    return not listed and any(row != same[0] for row in same)


def _place(row: Row) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()
