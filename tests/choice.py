"""Which of many cases alike `make test` runs: two, chosen by the commit. `make test-all` runs them all."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Case = TypeVar("Case")

COUNT = 2
_ALL, _COMMIT = "TEST_ALL", "TEST_COMMIT"
# What was chosen from, by name, for the header of the tests.
_told: dict[str, tuple[list[str], int]] = {}


def runs_all() -> bool:
    return os.environ.get(_ALL, "") not in ("", "0")


def commit() -> str:
    """The commit that is checked out; "none" where there is no git, which is a fixed choice.

    Kept in the environment, so that all workers and what they start choose the same.
    """
    if _COMMIT not in os.environ:
        asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, check=True)
            os.environ[_COMMIT] = done.stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            os.environ[_COMMIT] = "none"
    return os.environ[_COMMIT]


def some(what: str, cases: Sequence[Case], always: Sequence[Case] = (), count: int = COUNT) -> list[Case]:
    """``count`` of the cases, by a hash of the commit and of ``what``, in their order; all of them in `make test-all`.

    Those of ``always`` come in addition. ``what`` names the cases in the header: "pruners".
    """
    ranked = sorted((case for case in cases if case not in always), key=lambda case: _rank(what, case))
    chosen = list(cases) if runs_all() else [case for case in cases if case in (*always, *ranked[:count])]
    _told[what] = [str(case) for case in chosen], len(cases)
    return chosen


def _rank(what: str, case: object) -> str:
    return hashlib.sha256(f"{commit()} {what} {case}".encode()).hexdigest()


def header() -> list[str]:
    """What was chosen up to now, and how all is run."""
    if runs_all():
        return ["all cases are run"]
    lines = [f"  {what}: {', '.join(chosen)} of {count}" for what, (chosen, count) in sorted(_told.items())]
    return [f"chosen by commit {commit()[:12]}; `make test-all` (TEST_ALL=1) runs all", *lines]
