"""Speed as ratios to a baseline in the same process; ``python -m pipeline.bench`` prints one ``name value`` a line."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from pipeline.capture import Trajectory, capture_trajectory
from pipeline.check import CONF
from pipeline.config import Settings
from pipeline.decoder import Decoder
from pipeline.main import resolve
from pipeline.measure import measure_layers
from pipeline.models.base import resolve_dtype
from pipeline.probes import PROBES
from pipeline.pruners.base import Calibration
from pipeline.quiet import quiet_libraries
from pipeline.sparsity import parse
from pipeline.store import Store

SCORED, PRUNED = ("shortgpt", "attn_drop", "mlp_drop"), ("wanda",)


def ratio(subject: Callable[[], object], baseline: Callable[[], object], repeats: int) -> float:
    """Median over interleaved repeats of the time of ``subject`` over that of ``baseline``, after a warm-up."""
    pairs = [(_seconds(subject), _seconds(baseline)) for _ in range(repeats + 1)][1:]
    return statistics.median(a / b for a, b in pairs)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pruning(settings: Settings, store: Store, repeats: int) -> None:
    """Scoring passes over one bare forward of the calibration set, weight pruning over two."""
    source = settings.calibration
    batches = source.batches(settings.model.tokenizer(store))
    calibration = Calibration(batches, lambda items, what, total: items)

    def load() -> Decoder:
        return Decoder(settings.model.load(resolve_dtype("auto"), store))

    decoder = load()

    @torch.inference_mode()
    def forward() -> None:
        for batch in batches:
            decoder.base(batch.to(decoder.device), use_cache=False)

    for name in SCORED:
        pruner = _settings(f"pruner={name}").pruner
        report(f"{name}_vs_forward", ratio(partial(pruner.importance, decoder, calibration), forward, repeats))
    for name in PRUNED:
        pruner, subject = _settings(f"pruner={name}").pruner, load()
        work = partial(pruner.decide, subject, parse(0.5), [], calibration)
        report(f"{name}_vs_forward", ratio(work, forward, repeats) / 2)


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
        measure_layers(dense, None, weight, [1.0], lambda items, what, total: items)

    report("measure_vs_gemm", ratio(measure, projections, repeats))


def report(name: str, value: float) -> None:
    print(f"{name} {value:.3f}", flush=True)


def _settings(*overrides: str) -> Settings:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("config", overrides=list(overrides)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks. Any configuration override may be given, such as ``model=random``."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.bench", description="Speed as ratios to a baseline.")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats of each pair (default: 3)")
    parser.add_argument(
        "overrides", nargs="*", help="configuration overrides (default: 32 calibration sequences of 512)"
    )
    chosen = parser.parse_args(arguments)
    quiet_libraries()
    settings = _settings("calibration.sequences=32", "calibration.length=512", *chosen.overrides)
    store = Store(Path(settings.outputs))
    pruning(settings, store, chosen.repeats)
    measuring(settings, store, chosen.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
