"""The console of a run: the lines that a job logs, without secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pipeline.common.secrets import redact

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run


class _RunLogs(logging.Handler):
    """Writes log lines to the Logs page of a run."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        # A writer that has died is reported once, when the run is finished.
        with suppress(Exception):
            self._run.write_logs(redact(self.format(record)))


@contextmanager
def lines_to(run: Run | None) -> Iterator[None]:
    """Write to the run what is logged within the block, here and by libraries."""
    if run is None:
        yield
        return
    handler = _RunLogs(run)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
