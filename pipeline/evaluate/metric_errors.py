"""Standard errors by resampling, in this process: lm-eval would start a pool for them, which it kills when done."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lm_eval.api.metrics


def bootstrap_stderr(metric: Callable[[Sequence[Any]], float], items: Sequence[Any], iters: int) -> float:
    """The standard deviation of a metric over ``iters`` resamples of its items: the number that lm-eval's pool gives.

    For at most 1000 resamples, which are one of its processes' work.
    """
    draws = random.Random(0)
    found = [metric(draws.choices(items, k=len(items))) for _ in range(iters)]
    return float(lm_eval.api.metrics.sample_stddev(found))


@contextmanager
def in_this_process() -> Iterator[None]:
    """Within it, lm-eval resamples here, quietly."""
    before = lm_eval.api.metrics.bootstrap_stderr
    lm_eval.api.metrics.bootstrap_stderr = bootstrap_stderr
    try:
        yield
    finally:
        lm_eval.api.metrics.bootstrap_stderr = before
