"""Ratios of times, peaks of memory, and how they are printed."""

from __future__ import annotations

import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil
from hydra import compose, initialize_config_dir

from pipeline.config.search_path import CONF
from pipeline.prune.settings import Settings
from pipeline.run.compose import resolve

GIB = 2**30


def ratio(subject: Callable[[], object], baseline: Callable[[], object], repeats: int) -> float:
    """Return the median time ratio of ``subject`` to ``baseline`` over interleaved repeats, after a warm-up."""
    return median_ratio(timed(subject, baseline, repeats))


def timed(subject: Callable[[], object], baseline: Callable[[], object], repeats: int) -> list[tuple[float, float]]:
    """Return the seconds of both in each of the interleaved repeats, after a warm-up."""
    return [(seconds(subject), seconds(baseline)) for _ in range(repeats + 1)][1:]


def median_ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """Return the median over pairs of the first number divided by the second."""
    return statistics.median(a / b for a, b in pairs)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_memory(work: Callable[[], object]) -> int:
    """Return the peak resident memory of ``work`` in bytes, beyond what the process held before."""
    process, done = psutil.Process(), threading.Event()
    _give_back()
    start = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak - start


def _give_back() -> None:
    """Return freed memory to the system: what the allocator keeps from earlier work would hide what this work takes."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def report(name: str, value: float) -> None:
    print(f"{name} {value:.3f}", flush=True)


def settings_of(*overrides: str) -> Settings:
    """Return the settings of a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("config", overrides=list(overrides)))
