"""What the tests of the sandbox share."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable

import psutil
import pytest

from pipeline.evaluate.code import sandbox
from pipeline.evaluate.code.sandbox import Limits, Outcome, run

_WHY = sandbox.unavailable()
isolated = pytest.mark.skipif(_WHY is not None, reason=str(_WHY))


def run_text(program: str, limits: Limits | None = None) -> Outcome:
    return run(textwrap.dedent(program), limits)


def gone(marker: str) -> bool:
    """Whether no process has ``marker`` as an argument (any more)."""
    return all(marker not in (process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to pass"
        time.sleep(0.05)


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))
