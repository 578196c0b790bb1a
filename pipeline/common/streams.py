"""Standard output that may be closed or full: a computation does not fail because a line cannot be printed."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


class Tolerant:
    """A text stream that reports a failed write once, on standard error, and drops everything after it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, action: Any) -> None:
        if self._broken:
            return
        try:
            action()
        except (OSError, ValueError) as error:
            self._broken = True
            # The reader of a pipe has seen enough; any other failure is worth a message.
            if not isinstance(error, BrokenPipeError):
                print(f"cannot write to standard output any more: {error}", file=sys.stderr)


def tolerate_lost_output() -> None:
    """Make standard output of this process `Tolerant`; streams closed before its start become the null device."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
    if not isinstance(sys.stdout, Tolerant):
        stream: Any = Tolerant(sys.stdout)
        sys.stdout = stream
