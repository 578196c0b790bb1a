"""The contract of a source: how the values of a finding are read from results, or measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.store.provenance import origin
from pipeline.study.findings.table import Value

Values = Mapping[str, Value]


class NoResults(Exception):
    """Raised when the results that a finding is read from are not there; the message says how to get them."""


@dataclass(frozen=True)
class Measured:
    """Values, with the commit and date (YYYY-MM-DD) of the code that gave them, and the versions of its stages."""

    values: Values
    stages: Mapping[str, int]
    commit: str
    date: str


@dataclass(frozen=True)
class Source:
    """Where a finding comes from: ``read(outputs)`` returns its values. ``slow`` ones are read only when asked for."""

    command: str
    read: Callable[[Path], Measured]
    slow: bool = False


def measured_now(values: Values, stages: Mapping[str, int]) -> Measured:
    """Return values that this process has measured."""
    here = origin()
    return Measured(values, stages, commit_of(here), datetime.now(UTC).date().isoformat())


def commit_of(facts: Mapping[str, object]) -> str:
    """Return the short commit of an origin, marked where files differed from it."""
    commit = str(facts.get("commit") or "")[:7] or "unknown"
    return f"{commit} with changes" if facts.get("dirty") else commit
