"""The stages of evaluation: token ids of the requests, scores, perplexity, and the comparison with the dense model."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data.calibration.held_out import check_held_out
from pipeline.evaluate import ask
from pipeline.evaluate.comparison import compare
from pipeline.evaluate.fidelity import fidelity
from pipeline.evaluate.harness_suite import AUTO
from pipeline.evaluate.overlap import Overlap
from pipeline.evaluate.perplexity import HeldOutText, held_out, perplexity_row
from pipeline.model.sources.base import writes_text
from pipeline.model.special_tokens import in_words
from pipeline.model.tokens import tokenizer_digest, tokens_of
from pipeline.prune.pruned_model import pruned_model, shape_of, writer
from pipeline.prune.stage import PruningDecision
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Artifact
from pipeline.store.stage import Stage
from pipeline.store.table_names import COMPARISONS, FIDELITY, ITEMS, SCORES

log = logging.getLogger(__name__)
# Raised when ranks or probabilities of gold answers change. That moves no score, hence not the version of `Evaluation`.
_STANDINGS = 2
_SIZE, _LONGEST = "batch_size.txt", "longest.txt"


def prepare(bench: Workbench) -> None:
    """Check before any work for what would stop or spoil the job later. Raises ValueError.

    Tasks that are not evaluated yet must be loadable, and calibration prompts must be neither probes nor items.
    """
    settings = bench.settings
    if {"capture", "measure"} & set(settings.stages):
        _check_held_out(bench, [probe.text for probe in settings.probes], "a probe prompt")
    if "evaluate" not in settings.stages:
        return
    if not (bench.find(PruningDecision) and bench.find(Evaluation)):
        ask.check_chat_template(settings.task, bench.tokenizer, f"model {settings.model.name}")
        ask.prepare(settings.task, settings.seed)
        _check_held_out(bench, ask.questions(settings.task, settings.seed), "an item of the tasks")


def _check_held_out(bench: Workbench, asked: Iterable[str], what: str) -> None:
    source = bench.settings.calibration
    if source.generated and bench.settings.pruner.calibrated:
        check_held_out(source.name, source.prompts(), asked, what)


def evaluated(bench: Workbench) -> dict[str, Artifact]:
    """Make scores and perplexity of this and of the dense model, and their comparison; return the artifacts by role.

    Answers that are not scored are not compared.
    """
    steps = {"dense evaluation": lambda: bench.dense.make(Evaluation), "evaluation": lambda: bench.make(Evaluation)}
    artifacts = bench.store.in_turn(steps)
    texts = {"dense perplexity": lambda: _perplexity(bench.dense), "perplexity": lambda: _perplexity(bench)}
    if len(there := {role: text for role, text in bench.store.in_turn(texts).items() if text}) == len(texts):
        artifacts |= there
    if bench.is_dense or not bench.settings.task.is_scored:
        return artifacts
    artifacts["comparison"] = bench.make(Comparison)
    return artifacts | ({"overlap": bench.make(Overlap)} if bench.settings.pruner.calibrated else {})


def _perplexity(bench: Workbench) -> Artifact | None:
    """Make the perplexity; return None if it is not asked for, or the model writes no text."""
    if held_out(bench.settings.perplexity) is None:
        return None
    if bench.is_unchanged:
        return _perplexity(bench.dense)
    if found := bench.find(Perplexity):
        return found
    return bench.make(Perplexity) if writes_text(pruned_model(bench, bench.dtype)) else None


@dataclass
class Requests(Stage):
    """Token ids of all requests of the tasks, and the longest's length, shared by models with the same tokenizer."""

    bench: Workbench
    name = "requests"
    version = 1

    def inputs(self) -> dict[str, Any]:
        settings = self.bench.settings
        tokenizer = tokenizer_digest(self.bench.tokenizer)
        return {"task": settings.task.identity(), "tokenizer": tokenizer, "seed": settings.seed}

    def build(self, folder: Path) -> None:
        # Deferred: a job that finds its results asks no task.
        from pipeline.evaluate.by_harness import encode_requests

        bench, settings = self.bench, self.bench.settings
        model = shape_of(bench, bench.dtype) or writer(bench, bench.dtype)
        longest = encode_requests(model, bench.tokenizer, settings.task, settings.seed)
        tokens_of(bench.tokenizer).save(folder)
        (folder / _LONGEST).write_text(str(longest), encoding="utf-8")


def longest_request(artifact: Artifact) -> int:
    """Read how many tokens the longest of the `Requests` has, with what may be generated; 0 where nobody noted it."""
    noted = artifact.path / _LONGEST
    return int(noted.read_text(encoding="utf-8")) if noted.is_file() else 0


@dataclass
class BatchSize(Stage):
    """The number that task.batch_size=auto stands for, found on the dense model for all variants of it."""

    bench: Workbench
    name = "batch_size"
    version = 1

    def inputs(self) -> dict[str, Any]:
        bench, settings = self.bench, self.bench.settings
        decision = bench.dense.make(PruningDecision).key
        return {"dense": decision, "task": settings.task.identity(), "dtype": bench.dtype, "seed": settings.seed}

    def build(self, folder: Path) -> None:
        # Deferred: a job that finds its results asks no task.
        from pipeline.evaluate.by_harness import rows_of_pass

        bench, settings = self.bench, self.bench.settings
        tokens_of(bench.tokenizer).read(bench.make(Requests).path)
        size = rows_of_pass(writer(bench.dense, bench.dtype), bench.tokenizer, settings.task, settings.seed)
        (folder / _SIZE).write_text(str(size), encoding="utf-8")


@dataclass
class Evaluation(Stage):
    """Scores, items and samples of the task suite, or samples alone: ``pipeline.evaluate.results``."""

    bench: Workbench
    name = "evaluation"
    version = 6

    def inputs(self) -> dict[str, Any]:
        bench, settings = self.bench, self.bench.settings
        inputs: dict[str, Any] = {
            "decision": bench.make(PruningDecision).key,
            "task": settings.task.identity(),
            "dtype": bench.dtype,
            "seed": settings.seed,
            "standings": _STANDINGS,
        }
        if sizes := settings.batch_sizes(bench.dtype):
            auto = sizes["task"] == AUTO
            inputs["batch_size"] = bench.make(BatchSize).key if auto else sizes["task"]
        return inputs if settings.task.writes_text else inputs | {"embedding": settings.model.embedding}

    def instead(self) -> Artifact | None:
        return self.bench.dense.make(Evaluation) if self.bench.is_unchanged else None

    def build(self, folder: Path) -> None:
        bench, task = self.bench, self.bench.settings.task
        if task.writes_text:
            tokens_of(bench.tokenizer).read(bench.make(Requests).path)
        if task.batch_size == AUTO:
            task = replace(task, batch_size=int(bench.make(BatchSize).file(_SIZE).read_text(encoding="utf-8")))
        model = writer(bench, bench.dtype) if task.writes_text else pruned_model(bench, bench.dtype)
        ask.evaluate(model, bench.tokenizer, task, bench.settings.seed).save(folder)


@dataclass
class Perplexity(Stage):
    """Perplexity on held-out text as a score table."""

    bench: Workbench
    name = "perplexity"
    version = 2

    @property
    def _text(self) -> HeldOutText:
        text = held_out(self.bench.settings.perplexity)
        assert text is not None
        return text

    def inputs(self) -> dict[str, Any]:
        bench = self.bench
        return {"decision": bench.make(PruningDecision).key, "text": self._text.identity(), "dtype": bench.dtype}

    def build(self, folder: Path) -> None:
        bench = self.bench
        model = pruned_model(bench, bench.dtype)
        log.info("  special tokens in perplexity text: %s", in_words(bench.tokenizer))
        perplexity_row(model, bench.tokenizer, self._text).to_parquet(folder / SCORES, index=False)


@dataclass
class Comparison(Stage):
    """Comparison of every task with the dense model on the same items: scores and their difference, and answers.

    See ``pipeline.evaluate.comparison`` and ``pipeline.evaluate.fidelity``.
    """

    bench: Workbench
    name = "comparison"
    version = 4

    def _sides(self) -> tuple[Artifact, Artifact]:
        return self.bench.dense.make(Evaluation), self.bench.make(Evaluation)

    def inputs(self) -> dict[str, Any]:
        dense, own = self._sides()
        return {"dense": dense.key, "pruned": own.key}

    def build(self, folder: Path) -> None:
        items, own_items = (pd.read_parquet(side.file(ITEMS)) for side in self._sides())
        scores, own_scores = (pd.read_parquet(side.file(SCORES)) for side in self._sides())
        compare(items, own_items, scores, own_scores).to_parquet(folder / COMPARISONS, index=False)
        fidelity(items, own_items, own_scores).to_parquet(folder / FIDELITY, index=False)
