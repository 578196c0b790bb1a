"""What evaluation makes of a model, as artifacts: scores of tasks, perplexity, and both beside the dense ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data.calibration.held_out import check_held_out
from pipeline.evaluate import ask
from pipeline.evaluate.by_harness import encode_requests
from pipeline.evaluate.comparison import compare
from pipeline.evaluate.perplexity import held_out, perplexity_row
from pipeline.model.sources.base import writes_text
from pipeline.model.tokens import tokenizer_digest, tokens_of
from pipeline.prune.stage import COMPARISON, EVALUATION, PERPLEXITY, REQUESTS, ModelStages
from pipeline.store.artifacts import Artifact
from pipeline.store.identity import batch_sizes
from pipeline.store.table_names import COMPARISONS, ITEMS, SCORES


@dataclass
class EvaluationStages(ModelStages):
    """What one job finds out by asking its model."""

    def prepare(self) -> None:
        """Find out before any work what would end or spoil the job later. Raises ValueError.

        Tasks that are not evaluated yet have to be had, and prompts of the calibration are neither probes nor items.
        """
        settings = self.settings
        if {"capture", "measure"} & set(settings.stages):
            self._check_held_out([probe.text for probe in settings.probes], "a probe prompt")
        if "evaluate" not in settings.stages:
            return
        there = self.is_decided() and self.store.find(EVALUATION, self._inputs(EVALUATION, self._evaluation_inputs()))
        if not there:
            ask.prepare(settings.task, settings.seed)
            self._check_held_out(ask.questions(settings.task, settings.seed), "an item of the tasks")

    def _check_held_out(self, asked: Iterable[str], what: str) -> None:
        source = self.settings.calibration
        if source.generated and self.settings.pruner.calibrated:
            check_held_out(source.name, source.prompts(), asked, what)

    @cached_property
    def evaluation(self) -> Artifact:
        """Scores, items and samples of the task suite: ``pipeline.evaluate.results``."""
        if self._unchanged:
            return self.dense.evaluation
        task, seed = self.settings.task, self.settings.seed

        def build(folder: Path) -> None:
            if task.writes_text:
                tokens_of(self._tokenizer).read(self.requests.path)
            model = self.writer(self.dtype) if task.writes_text else self.model(self.dtype, pruned=True)
            ask.evaluate(model, self._tokenizer, task, seed).save(folder)

        return self.ensure(EVALUATION, self._evaluation_inputs(), build)

    def _evaluation_inputs(self) -> dict[str, Any]:
        settings = self.settings
        inputs: dict[str, Any] = {
            "decision": self.decision.key,
            "task": settings.task.identity(),
            "dtype": self.dtype,
            "seed": settings.seed,
        }
        if sizes := batch_sizes(settings, self.dtype):
            inputs["batch_size"] = sizes["task"]
        return inputs if settings.task.writes_text else inputs | {"embedding": settings.model.embedding}

    @cached_property
    def requests(self) -> Artifact:
        """The token ids of everything that the tasks ask, which models with the same tokenizer share."""
        task, seed, tokenizer = self.settings.task, self.settings.seed, self._tokenizer

        def build(folder: Path) -> None:
            encode_requests(self.writer(self.dtype), tokenizer, task, seed)
            tokens_of(tokenizer).save(folder)

        inputs = {"task": task.identity(), "tokenizer": tokenizer_digest(tokenizer), "seed": seed}
        return self.ensure(REQUESTS, inputs, build)

    @cached_property
    def perplexity(self) -> Artifact | None:
        """Perplexity on held-out text as a score table; None if none is wanted, or the model writes no text."""
        text = held_out(self.settings.perplexity)
        if text is None:
            return None
        if self._unchanged:
            return self.dense.perplexity
        inputs = {"decision": self.decision.key, "text": text.identity(), "dtype": self.dtype}
        if found := self.store.find(PERPLEXITY, self._inputs(PERPLEXITY, inputs)):
            return found
        model = self.model(self.dtype, pruned=True)
        if not writes_text(model):
            return None

        def build(folder: Path) -> None:
            perplexity_row(model, self._tokenizer, text).to_parquet(folder / SCORES, index=False)

        return self.ensure(PERPLEXITY, inputs, build)

    @cached_property
    def comparison(self) -> Artifact:
        """Every task's score beside the dense model's on the same items: ``pipeline.evaluate.comparison``."""
        dense, mine = self.dense.evaluation, self.evaluation

        def build(folder: Path) -> None:
            items, own_items = (pd.read_parquet(of.file(ITEMS)) for of in (dense, mine))
            scores, own_scores = (pd.read_parquet(of.file(SCORES)) for of in (dense, mine))
            compare(items, own_items, scores, own_scores).to_parquet(folder / COMPARISONS, index=False)

        return self.ensure(COMPARISON, {"dense": dense.key, "pruned": mine.key}, build)

    @property
    def _unchanged(self) -> bool:
        """Whether the pruned model is the dense one."""
        return not self.is_dense and self.settings.sparsity.is_zero and bool(self.settings.pruner.accepts)
