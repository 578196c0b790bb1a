"""Wanda and SparseGPT, ours and llm-compressor's: by turns, on equal weights, tokens and threads."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from pipeline.bench.ratios import report, seconds, settings_of
from pipeline.config.sparsity import parse
from pipeline.data.calibration.base import batches
from pipeline.evaluate.perplexity import held_out, perplexity_row
from pipeline.model.decoder import Decoder
from pipeline.model.sources.base import load_pretrained
from pipeline.prune.base import Context
from pipeline.prune.decision import ChangeFiles, Decision
from pipeline.prune.settings import Settings
from pipeline.prune.surgery import apply
from pipeline.store.artifacts import Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRUNERS = ("wanda", "sparsegpt")
SPARSITY = 0.5
_ROUNDS = 3
_PYTHON = Path(".peers/bin/python")
_SCRIPT = Path(__file__).parent / "llm_compressor.py"


def peers(settings: Settings, store: Store, repeats: int) -> None:
    """Report llm-compressor's time over ours for each pruner, medians of at least three rounds, and perplexities.

    Both prune the same float32 checkpoint by half, on the same batches and with as many threads. Times are of pruning
    alone, to the pruned model in memory. Without the environment of ``make peers``, a line on stderr says so.
    """
    if not _PYTHON.is_file():
        print("peers skipped: llm-compressor is not installed; run `make peers` first", file=sys.stderr)
        return
    source = settings.calibration
    tokens = batches(source.tokenize(settings.model.tokenizer(store)), source.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        dense = settings.model.load(torch.float32, store)
        dense.save_pretrained(work / "model")
        settings.model.tokenizer(store).save_pretrained(work / "model")
        save_file({f"{number:06d}": batch for number, batch in enumerate(tokens)}, work / "tokens.safetensors")
        perplexity = partial(_perplexity, settings, store)
        report("dense_perplexity", perplexity(dense))
        del dense
        for name in PRUNERS:
            _compare(name, work, tokens, perplexity, max(repeats, _ROUNDS))


def _compare(
    name: str,
    work: Path,
    tokens: list[torch.Tensor],
    perplexity: Callable[[PreTrainedModel], float],
    rounds: int,
) -> None:
    """Prune by turns, and report the ratio of times and the perplexities of both pruned models."""
    own: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        model = load_pretrained(str(work / "model"), torch.float32)
        own.append(seconds(partial(_prune, name, model, tokens)))
        theirs.append(_pruned_by_peer(name, work))
    report(f"{name}_vs_llmcompressor", statistics.median(theirs) / statistics.median(own))
    report(f"{name}_seconds", statistics.median(own))
    report(f"{name}_llmcompressor_seconds", statistics.median(theirs))
    report(f"{name}_perplexity", perplexity(model))
    report(f"{name}_llmcompressor_perplexity", perplexity(load_pretrained(str(work / name), torch.float32)))


def _prune(name: str, model: PreTrainedModel, tokens: list[torch.Tensor]) -> None:
    """Decide what to take out of a model, and take it out."""
    with tempfile.TemporaryDirectory() as folder:
        changes = ChangeFiles(Path(folder))
        context = Context(tokens, changes=changes, progress=lambda items, what, total: items)
        decision: Decision = settings_of(f"pruner={name}").pruner.decide(Decoder(model), parse(SPARSITY), context)
        apply(model, decision)


def _pruned_by_peer(name: str, work: Path) -> float:
    """Let llm-compressor prune in a process of its own; return the seconds of pruning. The model goes to a folder."""
    asked = {
        "model": str(work / "model"),
        "tokens": str(work / "tokens.safetensors"),
        "out": str(work / name),
        "pruner": name,
        "sparsity": SPARSITY,
        "threads": torch.get_num_threads(),
    }
    question, answer = work / "asked.json", work / "answer.json"
    question.write_text(json.dumps(asked), encoding="utf-8")
    command = [str(_PYTHON.absolute()), str(_SCRIPT), str(question), str(answer)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"llm-compressor ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return float(json.loads(answer.read_text(encoding="utf-8"))["seconds"])


def _perplexity(settings: Settings, store: Store, model: PreTrainedModel) -> float:
    """Compute the perplexity on the held-out text of the settings."""
    text = held_out(settings.perplexity)
    if text is None:
        raise ValueError("perplexity.tokens=null leaves no text to compare the pruned models on; give a number")
    return float(perplexity_row(model, settings.model.tokenizer(store), text)["value"].iloc[0])
