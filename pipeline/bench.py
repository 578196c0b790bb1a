"""Speed as ratios to a baseline in the same process; ``python -m pipeline.bench`` prints lines of ``name value``."""

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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from pipeline.common.quiet import quiet_libraries
from pipeline.config.choices import CONF
from pipeline.config.probes import PROBES
from pipeline.config.sparsity import parse
from pipeline.data.calibration.base import batches
from pipeline.evaluate.by_harness import encode_requests
from pipeline.evaluate.harness import load_tasks
from pipeline.evaluate.language_model import InMemoryLM
from pipeline.measure.layerwise import Stream, measure_stream
from pipeline.measure.measures import block_rows
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.sources.base import resolve_dtype
from pipeline.model.trajectory import capture_trajectory
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import ChangeFiles, Decision
from pipeline.prune.settings import Settings
from pipeline.prune.surgery import apply
from pipeline.run.compose import resolve
from pipeline.store.artifacts import Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Pruners timed in forward passes over the calibration set, and the number of passes that each amounts to.
PASSES = {"shortgpt": 1, "attn_drop": 1, "mlp_drop": 1, "wanda": 2, "sparsegpt": 2}
GIB = 2**30
# Benchmarks to score, with long and with short items.
SCORED = ("boolq", "commonsense_qa", "piqa")
# Number of positions of the layer protocol, and the stride at which the plain loop samples them.
POSITIONS, SAMPLED = 200, 20


def ratio(subject: Callable[[], object], baseline: Callable[[], object], repeats: int) -> float:
    """Return the median time ratio of ``subject`` to ``baseline`` over interleaved repeats, after a warm-up."""
    pairs = [(_seconds(subject), _seconds(baseline)) for _ in range(repeats + 1)][1:]
    return statistics.median(a / b for a, b in pairs)


def _seconds(work: Callable[[], object]) -> float:
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


def pruning(settings: Settings, store: Store, repeats: int) -> None:
    """Time pruners against bare forward passes over the calibration set, and report the two largest peaks of memory."""
    source = settings.calibration
    tokens = batches(source.tokenize(settings.model.tokenizer(store)), source.batch_size)
    dense = Decoder(settings.model.load(resolve_dtype("auto"), store))

    @torch.inference_mode()
    def forward(batches: Sequence[torch.Tensor] = tokens) -> None:
        for batch in batches:
            dense.base(batch.to(dense.device), use_cache=False)

    def subject(pruner: Pruner, passes: int) -> tuple[float, int]:
        """Return seconds and peak memory of the pruner's work; weight pruners get a model of their own to change."""
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
            # A shared machine drifts: the baseline is the mean of the forward passes before and after.
            after = _seconds(forward)
            ratios.append(seconds / passes / statistics.mean((before, after)))
            peaks.append(peak)
            before = after
        report(f"{name}_vs_forward", statistics.median(ratios))
        if passes > 1:
            report(f"{name}_peak_gib", max(peaks) / GIB)


def measuring(settings: Settings, store: Store, repeats: int) -> None:
    """Time all measures of the layer protocol at 200 positions against the bare projections of its distinct states.

    The baseline projects blocks as large as those of the measures, into memory allocated before. The plain loop takes
    every twentieth position, and its time is scaled to all of them.
    """
    model = settings.model.load(torch.float32, store)
    tokenizer = settings.model.tokenizer(store)
    captured = capture_trajectory(model, tokenizer, PROBES, settings.capture.steps, residual=True)
    assert captured.residual is not None
    weight, states = Decoder(model).head.weight.detach(), captured.residual[:, :POSITIONS].contiguous()
    dropped = Stream(states, captured.before, captured.after)
    # Changed weights give every sublayer a counterpart of its own; here it is a copy of the state before it.
    others = states[list(captured.before)]
    changed = replace(dropped, counterparts=others)
    head, positions = Head(weight), states.shape[1]

    def measure(stream: Stream) -> None:
        measure_stream(stream, head, [1.0], lambda items, what, total: items)

    @torch.inference_mode()
    def projections(several: torch.Tensor) -> None:
        out = weight.new_empty(min(positions, block_rows(head)), len(weight))
        for state in several:
            for block in state.split(len(out)):
                torch.mm(block, weight.T, out=out[: len(block)])

    both = torch.cat([states[list(captured.after)], others])
    report("positions", positions)
    report("measure_vs_gemm", ratio(lambda: measure(dropped), lambda: projections(states), repeats))
    report("measure_changed_vs_gemm", ratio(lambda: measure(changed), lambda: projections(both), repeats))
    report("measure_peak_gib", peak_memory(lambda: measure(dropped)) / GIB)
    some = replace(dropped, residual=states[:, ::SAMPLED].contiguous())
    share = some.residual.shape[1] / positions
    report("measure_vs_loop", _seconds(lambda: plain_loop(some, weight)) / share / _seconds(lambda: measure(dropped)))


@torch.inference_mode()
def plain_loop(stream: Stream, weight: torch.Tensor) -> list[list[float]]:
    """Compute the same measures step by step and layer by layer, with both models' logits and probabilities anew."""
    rows = []
    for position in range(stream.residual.shape[1]):
        for before, after in zip(stream.before, stream.after, strict=True):
            h, h2 = stream.residual[after, position], stream.residual[before, position]
            z, z2 = weight @ h, weight @ h2
            p, q = z.softmax(-1), z2.softmax(-1)
            dz = z2 - z
            r = p.square() / p.square().sum()
            row = [float(torch.cosine_similarity(x, y, dim=-1)) for x, y in ((h, h2), (z, z2), (p, q))]
            row.append(float((p * (z.log_softmax(-1) - z2.log_softmax(-1))).sum()))
            for x, dx in ((h, h2 - h), (z, dz)):
                along = (x @ dx) / (x @ x) * x
                row += [float(along.square().sum() / (x @ x)), float((dx - along).square().sum() / (x @ x))]
            for w in (p, r):
                mean = (w * dz).sum()
                row.append(float((w * (dz - mean).square()).sum()))
            row += [float(dz.var(correction=0)), float(dz.square().mean().sqrt())]
            first, second = p.topk(2).values
            entropy = -(p * z.log_softmax(-1)).sum()
            row += [float(first), float(entropy), float(first.log() - second.log()), float(z.argmax() != z2.argmax())]
            rows.append(row)
    return rows


def evaluating(settings: Settings, store: Store, repeats: int) -> None:
    """Measure how much dropped units speed up multiple-choice scoring, beside what counted operations predict."""
    tokenizer, seed = settings.model.tokenizer(store), settings.seed
    task = _settings("task=offline", f"task.names=[{','.join(SCORED)}]", "task.limit=24").task
    dense = settings.model.load(resolve_dtype("auto"), store)
    encode_requests(dense, tokenizer, task, seed)
    requests = [request for task in load_tasks(task, seed).tasks.values() for request in task.instances]

    def scoring(model: PreTrainedModel) -> Callable[[], object]:
        harness = InMemoryLM(model, tokenizer, settings.task.batch_size)
        return lambda: harness.loglikelihood(requests, disable_tqdm=True)

    def operations(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    base = scoring(dense)
    for name, decision in (
        ("attention_8", Decision(attention=tuple(range(10, 18)))),
        ("blocks_6", Decision(blocks=tuple(range(20, 26)))),
    ):
        model = settings.model.load(resolve_dtype("auto"), store)
        apply(model, decision)
        pruned = scoring(model)
        counted = operations(base) / operations(pruned)
        measured = ratio(base, pruned, repeats)
        report(f"scoring_without_{name}_speedup", measured)
        report(f"scoring_without_{name}_counted", counted)
        report(f"scoring_without_{name}_share", (measured - 1) / (counted - 1))


def report(name: str, value: float) -> None:
    print(f"{name} {value:.3f}", flush=True)


def _settings(*overrides: str) -> Settings:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("config", overrides=list(overrides)))


PARTS = {"pruning": pruning, "measuring": measuring, "evaluating": evaluating}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks. Any configuration override may be given, such as ``model=random``."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.bench", description="Speed as ratios to a baseline.")
    parser.add_argument("--repeats", type=int, default=1, help="timed repeats of each pair (default: 1)")
    parser.add_argument("--only", choices=tuple(PARTS), help="one part of the benchmarks (default: all)")
    parser.add_argument(
        "overrides", nargs="*", help="configuration overrides (default: 128 calibration sequences of 512)"
    )
    chosen = parser.parse_args(arguments)
    quiet_libraries()
    settings = _settings("calibration.sequences=128", "calibration.length=512", *chosen.overrides)
    store = Store(Path(settings.outputs))
    for name, run in PARTS.items():
        if chosen.only in (None, name):
            run(settings, store, chosen.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
