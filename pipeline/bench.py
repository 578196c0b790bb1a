"""Speed as ratios to a baseline in the same process; ``python -m pipeline.bench`` prints one ``name value`` a line."""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from hydra import compose, initialize_config_dir

from pipeline.calibration.base import batches
from pipeline.capture import Trajectory, capture_trajectory
from pipeline.choices import CONF
from pipeline.config import Settings
from pipeline.decoder import Decoder
from pipeline.main import resolve
from pipeline.measure import measure_layers
from pipeline.measures.compare import Head
from pipeline.models.base import resolve_dtype
from pipeline.probes import PROBES
from pipeline.pruners.base import Context, Pruner
from pipeline.pruners.decision import ChangeFiles
from pipeline.quiet import quiet_libraries
from pipeline.sparsity import parse
from pipeline.store import Store

# Pruners whose time is told in forward passes over the calibration set, and how many passes each amounts to.
PASSES = {"shortgpt": 1, "attn_drop": 1, "mlp_drop": 1, "wanda": 2, "sparsegpt": 2}
GIB = 2**30


def ratio(subject: Callable[[], object], baseline: Callable[[], object], repeats: int) -> float:
    """Median over interleaved repeats of the time of ``subject`` over that of ``baseline``, after a warm-up."""
    pairs = [(_seconds(subject), _seconds(baseline)) for _ in range(repeats + 1)][1:]
    return statistics.median(a / b for a, b in pairs)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_memory(work: Callable[[], object]) -> int:
    """How many bytes of resident memory ``work`` takes at most beyond what the process had before."""
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


def pruning(settings: Settings, store: Store, repeats: int) -> None:
    """Pruners over bare forwards of the calibration set, in one process, and the memory of the two largest."""
    source = settings.calibration
    tokens = batches(source.tokenize(settings.model.tokenizer(store)), source.batch_size)
    dense = Decoder(settings.model.load(resolve_dtype("auto"), store))

    @torch.inference_mode()
    def forward(batches: Sequence[torch.Tensor] = tokens) -> None:
        for batch in batches:
            dense.base(batch.to(dense.device), use_cache=False)

    def subject(pruner: Pruner, passes: int) -> tuple[float, int]:
        """Seconds and peak memory of the pruner's work; weight pruners change their model, so they get their own."""
        decoder = dense if passes == 1 else Decoder(settings.model.load(resolve_dtype("auto"), store))
        with tempfile.TemporaryDirectory() as folder:
            context = Context(tokens, changes=ChangeFiles(Path(folder)), progress=lambda items, what, total: items)
            start, work = time.perf_counter(), pruner.importance if passes == 1 else None
            peak = peak_memory(lambda: work(decoder, context) if work else pruner.decide(decoder, parse(0.5), context))
            return time.perf_counter() - start, peak

    forward(tokens[:1])
    before = _seconds(forward)
    for name, passes in PASSES.items():
        pruner, ratios, peaks = _settings(f"pruner={name}").pruner, [], []
        for _ in range(repeats):
            seconds, peak = subject(pruner, passes)
            # A shared machine drifts: the baseline is the mean of the forward before and the one after.
            after = _seconds(forward)
            ratios.append(seconds / passes / statistics.mean((before, after)))
            peaks.append(peak)
            before = after
        report(f"{name}_vs_forward", statistics.median(ratios))
        if passes > 1:
            report(f"{name}_peak_gib", max(peaks) / GIB)


def measuring(settings: Settings, store: Store, repeats: int) -> None:
    """The layer protocol with all measures over the bare projections of its distinct residual states."""
    model = settings.model.load(torch.float32, store)
    tokenizer = settings.model.tokenizer(store)
    dense: Trajectory = capture_trajectory(model, tokenizer, PROBES, settings.capture.steps, residual=True)
    assert dense.residual is not None
    weight, states = Decoder(model).head.weight.detach(), dense.residual

    @torch.inference_mode()
    def projections() -> None:
        for state in states:
            for block in state.split(64):
                block @ weight.T

    def measure() -> None:
        measure_layers(dense, None, Head(weight), [1.0], lambda items, what, total: items)

    report("measure_vs_gemm", ratio(measure, projections, repeats))


def report(name: str, value: float) -> None:
    print(f"{name} {value:.3f}", flush=True)


def _settings(*overrides: str) -> Settings:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("config", overrides=list(overrides)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks. Any configuration override may be given, such as ``model=random``."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.bench", description="Speed as ratios to a baseline.")
    parser.add_argument("--repeats", type=int, default=1, help="timed repeats of each pair (default: 1)")
    parser.add_argument(
        "overrides", nargs="*", help="configuration overrides (default: 128 calibration sequences of 512)"
    )
    chosen = parser.parse_args(arguments)
    quiet_libraries()
    settings = _settings("calibration.sequences=128", "calibration.length=512", *chosen.overrides)
    store = Store(Path(settings.outputs))
    pruning(settings, store, chosen.repeats)
    measuring(settings, store, chosen.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
