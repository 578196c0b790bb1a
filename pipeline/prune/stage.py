"""The stages that make a pruned model: calibration text, scores, the decision, the model in memory, its checkpoint.

Asking for an artifact finds it in the store or builds it, and whatever it needs, first. A model is in memory only
while something is really built; it is rebuilt as ``apply(load(model), decision)``.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.config.schema import Settings
from pipeline.config.sparsity import parse
from pipeline.data.calibration.base import batches, load, save
from pipeline.model.continuations import read
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_finite, check_scores
from pipeline.model.offload import is_offloaded
from pipeline.model.output_head import prove
from pipeline.model.sources.base import resolve_dtype, writes_text
from pipeline.model.tokens import tokenizer_digest
from pipeline.model.trajectory import KEY, Trajectory
from pipeline.prune.accounting import account
from pipeline.prune.base import Candidates, Context, Dropped, Score
from pipeline.prune.checkpoint import Written, as_checkpoint, probe_outputs, write_checkpoint
from pipeline.prune.decision import ChangeFiles, Decision
from pipeline.prune.methods.dense import Dense
from pipeline.prune.surgery import apply, dropped
from pipeline.prune.workspace import Workspace
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.identity import batch_sizes

log = logging.getLogger(__name__)
CALIBRATION, CONTINUED, IMPORTANCE, DECISION = "calibration", "continued", "importance", "decision"
EVALUATION = "evaluation"
TRAJECTORY, FORCED, COUNTERPARTS, OPTIONS = "trajectory", "teacher_forced", "counterparts", "options"
LAYERS, MEASURES, OPTION_MEASURES = "layers", "measures", "option_measures"
REQUESTS, PERPLEXITY, COMPARISON = "requests", "perplexity", "comparison"
# Raise a number when that stage's results change, so that results of older code are not reused.
VERSIONS = {
    CALIBRATION: 2,
    CONTINUED: 3,
    IMPORTANCE: 3,
    DECISION: 4,
    EVALUATION: 3,
    TRAJECTORY: 4,
    FORCED: 2,
    COUNTERPARTS: 4,
    OPTIONS: 2,
    LAYERS: 3,
    MEASURES: 4,
    OPTION_MEASURES: 2,
    REQUESTS: 1,
    PERPLEXITY: 2,
    COMPARISON: 2,
}


@dataclass
class ModelStages:
    """What one job does to its model, each step as an artifact of the store."""

    settings: Settings
    store: Store
    # The one model in memory, by dtype and whether it is pruned; shared with the baseline's stages.
    held: dict[tuple[str, bool], PreTrainedModel] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        return isinstance(self.settings.pruner, Dense)

    @property
    def is_encoder(self) -> bool:
        return Decoder(self.model(self.dtype, pruned=True)).architecture.encoder

    @cached_property
    def dense(self) -> Self:
        """The stages of the unpruned baseline under the same settings."""
        if self.is_dense:
            return self
        return type(self)(replace(self.settings, pruner=Dense(name="dense"), sparsity=parse(0)), self.store, self.held)

    @cached_property
    def dtype(self) -> str:
        return str(resolve_dtype(self.settings.dtype)).removeprefix("torch.")

    @cached_property
    def _model_identity(self) -> dict[str, Any]:
        return self.settings.model.identity()

    # --- prune -------------------------------------------------------------------------------------------------

    @cached_property
    def decision(self) -> Artifact:
        """What the pruner decides: ``pipeline.prune.decision``."""
        inputs = self._decision_inputs()
        return self.ensure(DECISION, inputs, lambda folder: self._decide(folder, inputs))

    def is_decided(self) -> bool:
        """Whether the decision is there already."""
        return self.store.find(DECISION, self._inputs(DECISION, self._decision_inputs())) is not None

    def _decision_inputs(self) -> dict[str, Any]:
        settings = self.settings
        return self._pruning_inputs(settings.pruner.identity()) | {
            "sparsity": settings.sparsity.given,
            "seed": settings.seed,
        }

    def _pruning_inputs(self, pruner: dict[str, Any]) -> dict[str, Any]:
        inputs: dict[str, Any] = {"model": self._model_identity, "pruner": pruner, "dtype": self.dtype}
        if self.settings.pruner.calibrated:
            inputs["calibration"] = self.settings.calibration.identity()
            if sizes := batch_sizes(self.settings, self.dtype):
                inputs["batch_size"] = sizes["calibration"]
        return inputs

    def _decide(self, folder: Path, inputs: dict[str, Any]) -> None:
        pruner, settings = self.settings.pruner, self.settings
        # Without calibration there is nothing in a block worth keeping for a second try.
        kept = self.store.unfinished(DECISION, self._inputs(DECISION, inputs)) if pruner.calibrated else None
        # Scores may come from the store, or from a pass over this same model.
        decoder = Decoder(self.model(self.dtype, pruned=False))
        torch.manual_seed(settings.seed)
        with Workspace() as workspace:
            context = replace(
                self._context(decoder),
                seed=settings.seed,
                changes=ChangeFiles(folder, kept),
                scratch=self.store.private("activations"),
                scores=partial(self._importance, workspace),
            )
            decision = account(decoder, pruner.decide(decoder, settings.sparsity, context))
        decision.save(folder)
        if is_offloaded(decoder.model):
            self.release()
            return
        apply(decoder.model, decision)
        check_finite(decoder.model, f"model {settings.model.name} pruned by {pruner.name}")
        self.held.clear()
        self.held[self.dtype, not self.is_dense] = decoder.model

    def _importance(self, workspace: Workspace, gone: Dropped, candidates: Candidates = ()) -> list[Score]:
        """The pruner's scores on the model without some sublayers, of the candidates if there are any."""
        settings, pruner = self.settings, self.settings.pruner

        def build(folder: Path) -> None:
            decoder = Decoder(self.model(self.dtype, pruned=False))
            context = replace(self._context(decoder), candidates=candidates, workspace=workspace, seed=settings.seed)
            with dropped(decoder, gone):
                rows = pruner.importance(decoder, context)
            check_scores(rows, f"model {settings.model.name} scored by {pruner.name}")
            pd.DataFrame(rows).to_parquet(folder / "scores.parquet", index=False)

        inputs = self._pruning_inputs(pruner.scoring_identity()) | {
            "dropped": {k: list(v) for k, v in gone.items() if v}
        }
        if pruner.seeded:
            inputs["seed"] = settings.seed
        if candidates:
            inputs["candidates"] = sorted([kind, layer] for kind, layer in candidates)
        artifact = self.ensure(IMPORTANCE, inputs, build)
        return pd.read_parquet(artifact.file("scores.parquet")).to_dict("records")

    def _context(self, decoder: Decoder) -> Context:
        if not self.settings.pruner.calibrated:
            return Context()
        longest, room = max(batch.shape[1] for batch in self._calibration), decoder.positions
        if room is not None and longest > room:
            raise ValueError(
                f"calibration.length={longest} is more than the {room} positions of model {self.settings.model.name}; "
                f"give at most {room}"
            )
        if not self.settings.pruner.compares:
            return Context(self._calibration)
        if not self.settings.calibration.generated:
            log.warning(
                "%s compares on given text; what generation loses shows on what the model writes itself: "
                "calibration=trajectories",
                self.settings.pruner.name,
            )
        return Context(self._calibration, self._continued)

    @cached_property
    def _continued(self) -> Trajectory:
        """The calibration text and the dense model's final states on it; it is its own text where that is wanted."""
        source = self.settings.calibration
        inputs: dict[str, Any] = {"model": self._model_identity, "dtype": self.dtype, "calibration": source.identity()}

        def build(folder: Path) -> None:
            model = self.model(self.dtype, pruned=False)
            if source.generated:
                trajectory = source.continued(model, self._tokenizer)
            else:
                trajectory = read(model, [row for batch in self._calibration for row in batch.tolist()])
            trajectory.save(folder)

        return Trajectory.load(self.ensure(CONTINUED, inputs, build).path)

    @cached_property
    def _calibration(self) -> list[torch.Tensor]:
        """The calibration batches, tokenised once for every model with the same tokenizer."""
        source, tokenizer = self.settings.calibration, self.settings.model.tokenizer(self.store)
        if source.generated:
            own = self._continued
            rows = [torch.tensor([*prompt, *tokens]) for prompt, tokens in zip(own.prompts, own.tokens, strict=True)]
            return batches(rows, source.batch_size)
        inputs = {"calibration": source.identity(), "tokenizer": tokenizer_digest(tokenizer)}
        artifact = self.ensure(CALIBRATION, inputs, lambda folder: save(source.tokenize(tokenizer), folder))
        return batches(load(artifact.path), source.batch_size)

    # --- export ------------------------------------------------------------------------------------------------

    def export(self, target: Path, describe: Callable[[Path, Written], None]) -> None:
        """The pruned model as an ordinary checkpoint: ``pipeline.prune.checkpoint``."""
        expected = probe_outputs(self.model(self.dtype, pruned=True))
        decision = Decision.load(self.decision.path)
        self.release()

        def prune() -> PreTrainedModel:
            model = self.settings.model.load(getattr(torch, self.dtype), self.store)
            as_checkpoint(model, decision)
            return model

        source = self.settings.model
        tokenizer, placement = source.tokenizer(self.store), source.placement(self.store)
        write_checkpoint(prune, tokenizer, target, expected, describe, **placement)

    # --- models ------------------------------------------------------------------------------------------------

    def model(self, dtype: str, pruned: bool) -> PreTrainedModel:
        """The model in a dtype, dense or pruned as decided. One at a time is in memory."""
        key = dtype, pruned and not self.is_dense
        if key not in self.held:
            decision = Decision.load(self.decision.path) if key[1] else None
            self.release()
            model = self.settings.model.load(getattr(torch, dtype), self.store)
            check_finite(model, f"model {self.settings.model.name}")
            self._probe(model, dtype)
            prove(model)
            model.embedding_recipe = self.settings.model.embedding or {}
            if decision is not None:
                apply(model, decision)
                check_finite(model, f"model {self.settings.model.name} pruned by {self.settings.pruner.name}")
                self._probe(model, dtype)
            self.held[key] = model
        return self.held[key]

    def _probe(self, model: PreTrainedModel, dtype: str) -> None:
        """Try a model in float16 on a short text: what overflows should be known before hours of work."""
        if dtype == "float16":
            probe_outputs(model, KEY if dtype != self.dtype else "dtype")

    def writer(self, dtype: str) -> PreTrainedModel:
        """The pruned model, which has to be one that writes text. Raises ValueError for an encoder."""
        model = self.model(dtype, pruned=True)
        if not writes_text(model):
            raise ValueError(
                f"model {self.settings.model.name} has no output head: it can neither continue a text nor weigh "
                "answers; evaluate it with task=retrieval, or prune and export it with stages=[prune] export=DIR"
            )
        return model

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return self.settings.model.tokenizer(self.store)

    def release(self) -> None:
        """Let go of the model in memory."""
        self.held.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def ensure(self, stage: str, inputs: dict[str, Any], build: Callable[[Path], None]) -> Artifact:
        return self.store.ensure(stage, self._inputs(stage, inputs), build)

    @staticmethod
    def _inputs(stage: str, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"version": VERSIONS[stage], **inputs}
