"""lm-eval's progress bar while it builds requests: as all others, on a terminal alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import lm_eval.api.task
from tqdm import tqdm

from pipeline.common.heartbeat import bars_are_seen


@contextmanager
def bars_on_terminals() -> Iterator[None]:
    """Let lm-eval show its bar within the block only where somebody sees it move."""
    before = lm_eval.api.task.tqdm
    lm_eval.api.task.tqdm = partial(
        tqdm, desc="  requests", leave=False, disable=not bars_are_seen(), dynamic_ncols=True
    )
    try:
        yield
    finally:
        lm_eval.api.task.tqdm = before
