"""Findings of `make bench`: runs one part of it, which takes minutes, and reads what it prints."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.study.findings.source import Measured, NoResults, Source, Values, measured_now
from pipeline.study.findings.table import ROOT, Value
from pipeline.study.findings.versions import versions_of_code

Numbers = Mapping[str, float]
_STAGES = {
    "pruning": ("calibration", "importance", "decision"),
    "measuring": ("trajectory", "layers"),
    "evaluating": ("requests", "evaluation"),
    "asking": ("requests", "evaluation"),
    "again": (),
    "peers": ("calibration", "decision", "perplexity"),
}


def pruning(found: Numbers) -> Values:
    """Return the times of scoring, in forward passes, and the largest peak of memory."""
    *first, last = (f"{found[f'{name}_vs_forward']:.2f}" for name in ("shortgpt", "attn_drop", "mlp_drop"))
    memory = max(value for name, value in found.items() if name.endswith("_peak_gib"))
    return {
        "scoring": f"{', '.join(first)} and {last}",
        "wanda": f"{found['wanda_vs_forward']:.2f}",
        "sparsegpt": f"{found['sparsegpt_vs_forward']:.2f}",
        "memory": f"{memory:.1f} GiB",
    }


def measuring(found: Numbers) -> Values:
    """Return the times of measuring, in bare projections, and its peak of memory."""
    return {
        "dropped": f"{found['measure_vs_gemm']:.1f}",
        "changed": f"{found['measure_changed_vs_gemm']:.1f}",
        "loop": f"{found['measure_vs_loop']:.0f}",
        "memory": f"{found['measure_peak_gib']:.2f} GiB",
    }


def evaluating(found: Numbers) -> Values:
    """Return how much faster scoring is without some units, measured and counted."""
    values = {}
    for name, unit in (("without_attention", "attention_8"), ("without_blocks", "blocks_6")):
        values[name] = f"{found[f'scoring_without_{unit}_speedup']:.2f}"
        values[f"{name}_counted"] = f"{found[f'scoring_without_{unit}_counted']:.2f}"
    return values


def asking(found: Numbers) -> Values:
    """Return lm-eval's time over ours, for matched items and for benchmarks, and tokens run over distinct ones."""
    names = ("matched", "choice", "generation", "choice_benchmarks")
    values = {name: f"{found[f'{name}_vs_lm_eval']:.1f}" for name in names}
    values["slowest"] = f"{found['choice_slowest_task_vs_lm_eval']:.1f}"
    return values | {"tokens": f"{found['choice_tokens_vs_tree']:.2f}"}


def again(found: Numbers) -> Values:
    """Return the seconds of a random model's job, from nothing and when it finds everything."""
    return {"fresh": f"{found['fresh_seconds']:.0f} s", "again": f"{found['again_seconds']:.0f} s"}


def peers(found: Numbers) -> Values:
    """Return llm-compressor's time over ours for each pruner, and the perplexities of both pruned models."""
    values: dict[str, Value] = {"dense": f"{found['dense_perplexity']:.1f}"}
    for name in ("wanda", "sparsegpt"):
        values[name] = f"{found[f'{name}_vs_llmcompressor']:.1f}"
        values[f"{name}_perplexity"] = f"{found[f'{name}_perplexity']:.1f}"
        values[f"{name}_peer_perplexity"] = f"{found[f'{name}_llmcompressor_perplexity']:.1f}"
    return values


def numbers_of(printed: str) -> dict[str, float]:
    """Return the numbers of lines of ``name value``."""
    pairs = (line.split() for line in printed.splitlines())
    return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}


def source(part: str, values: Callable[[Numbers], Values], *overrides: str) -> Source:
    """Return the source that runs one part of the benchmarks."""

    def read(outputs: Path) -> Measured:
        command = [sys.executable, *words, f"outputs={outputs.absolute()}"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        found = numbers_of(done.stdout)
        if done.returncode or not found:
            raise NoResults(
                f"pipeline.bench --only {part} ended with status {done.returncode}; what it printed says why"
            )
        versions = versions_of_code()
        return measured_now(values(found), {name: versions[name] for name in _STAGES[part]})

    words = ["-m", "pipeline.bench", "--only", part, *overrides]
    return Source(" ".join(["python", *words]), read, slow=True)


SOURCES = {
    "bench_pruning": source("pruning", pruning),
    "bench_measuring": source("measuring", measuring),
    "bench_evaluating": source("evaluating", evaluating),
    "bench_asking": source("asking", asking, "dtype=float32"),
    "bench_asking_bfloat16": source("asking", asking, "dtype=bfloat16"),
    "bench_again": source("again", again),
    # With the text that it reads otherwise it would take an hour.
    "bench_peers": source("peers", peers, "calibration.sequences=8"),
}
