"""Pruners against bare forward passes over the calibration set."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.bench.ratios import GIB, peak_memory, report, seconds, settings_of
from pipeline.config.sparsity import parse
from pipeline.data.calibration.base import batches
from pipeline.model.decoder import Decoder
from pipeline.model.sources.base import resolve_dtype
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import ChangeFiles
from pipeline.prune.settings import Settings
from pipeline.store.artifacts import Store

# Pruners timed in forward passes over the calibration set, and the number of passes that each amounts to.
PASSES = {"shortgpt": 1, "attn_drop": 1, "mlp_drop": 1, "wanda": 2, "sparsegpt": 2}


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
    before = seconds(forward)
    for name, passes in PASSES.items():
        pruner, ratios, peaks = settings_of(f"pruner={name}").pruner, [], []
        for _ in range(repeats):
            took, peak = subject(pruner, passes)
            # A shared machine drifts: the baseline is the mean of the forward passes before and after.
            after = seconds(forward)
            ratios.append(took / passes / statistics.mean((before, after)))
            peaks.append(peak)
            before = after
        report(f"{name}_vs_forward", statistics.median(ratios))
        if passes > 1:
            report(f"{name}_peak_gib", max(peaks) / GIB)
