"""Run a task suite on the in-memory model through the lm-eval harness."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval.evaluator
import pandas as pd
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.language_model import InMemoryLM
from pipeline.tasks.base import TaskEntry, TaskSuite

SCORES, SAMPLES = "scores.parquet", "samples.jsonl.gz"
# Metrics that are no plain means get their standard error by this many resamples.
_BOOTSTRAP = 1000


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: TaskSuite, seed: int, folder: Path
) -> None:
    """Evaluate and write ``scores.parquet`` (task, kind, metric, value, stderr, n) and ``samples.jsonl.gz``."""
    entries = {entry.name: entry for entry in suite.entries()}
    include = suite.include_path()
    tasks = TaskManager(include_path=str(include) if include else None, include_defaults=include is None)
    loaded = tasks.load(list(entries))
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=seed)
    # The harness's simple_evaluate would also probe the machine and its git checkout, which takes seconds a job.
    results = lm_eval.evaluator.evaluate(
        lm=InMemoryLM(model, tokenizer, suite.batch_size),
        task_dict=loaded,
        limit=suite.limit,
        bootstrap_iters=_BOOTSTRAP,
        log_samples=True,
    )
    rows = [_row(entry, results) for entry in entries.values()]
    pd.DataFrame(rows).to_parquet(folder / SCORES, index=False)
    with gzip.open(folder / SAMPLES, "wt", encoding="utf-8") as stream:
        for name, entry in entries.items():
            for sample in results["samples"][name]:
                stream.write(json.dumps(_sample(entry, sample), ensure_ascii=False) + "\n")


def _row(entry: TaskEntry, results: Mapping[str, Any]) -> dict[str, Any]:
    """The main metric of one task. Raises ValueError if the harness did not report it."""
    scores: Mapping[str, Any] = results["results"][entry.name]
    for key, value in scores.items():
        metric, _, reading = key.partition(",")
        if metric == entry.metric:
            # A single item has none; the harness then says so in words.
            stderr = scores.get(f"{metric}_stderr,{reading}")
            return {
                "task": entry.task,
                "kind": entry.kind,
                "metric": metric,
                "value": float(value),
                "stderr": float(stderr) if isinstance(stderr, int | float) else float("nan"),
                "n": int(results["n-samples"][entry.name]["effective"]),
            }
    raise ValueError(f"task {entry.name} reports no {entry.metric}; it has {', '.join(scores)}")


def _sample(entry: TaskEntry, sample: Mapping[str, Any]) -> dict[str, Any]:
    responses = sample["filtered_resps"]
    return {
        "task": entry.task,
        "kind": entry.kind,
        "item": sample["doc_id"],
        "prompt": sample["arguments"][0][0] if sample["arguments"] else "",
        "response": responses[0] if len(responses) == 1 else responses,
        "gold": sample["target"],
        "score": sample[entry.metric],
    }
