"""Standard errors by resampling within this process; lm-eval would start a process pool and kill it when done."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lm_eval.api.metrics


def bootstrap_stderr(metric: Callable[[Sequence[Any]], float], items: Sequence[Any], iters: int) -> float:
    """Compute the standard deviation of a metric over ``iters`` resamples of its items.

    The number equals that of lm-eval's pool for at most 1000 resamples, which are the work of one of its processes.
    """
    draws = random.Random(0)
    found = [metric(draws.choices(items, k=len(items))) for _ in range(iters)]
    return float(lm_eval.api.metrics.sample_stddev(found))


@contextmanager
def in_this_process() -> Iterator[None]:
    """Let lm-eval resample in this process within the block, quietly."""
    before = lm_eval.api.metrics.bootstrap_stderr
    lm_eval.api.metrics.bootstrap_stderr = bootstrap_stderr
    try:
        yield
    finally:
        lm_eval.api.metrics.bootstrap_stderr = before
