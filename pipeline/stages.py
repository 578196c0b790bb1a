"""The stages of a job as artifacts: what each reads, which key that makes, and how it is built.

Asking for an artifact finds it in the store or builds it, and whatever it needs, first. A model is in memory only
while something is really built; it is rebuilt as ``apply(load(model), decision)``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from pipeline.calibration.base import batches, load, save, tokenizer_digest
from pipeline.capture import (
    Trajectory,
    capture_counterparts,
    capture_trajectory,
    load_counterparts,
    save_counterparts,
)
from pipeline.config import Settings
from pipeline.console import progress
from pipeline.decoder import ATTENTION, MLP, SUBLAYERS, Decoder
from pipeline.evaluate import evaluate
from pipeline.export import as_checkpoint, probe_outputs, write_checkpoint
from pipeline.measure import measure_free_running, measure_layers, side_by_side
from pipeline.measures.compare import Head
from pipeline.models.base import resolve_dtype
from pipeline.offload import is_offloaded, resident
from pipeline.probes import PROBES
from pipeline.pruners.accounting import account
from pipeline.pruners.base import Context, Dropped, Score
from pipeline.pruners.decision import ChangeFiles, Decision
from pipeline.pruners.dense import Dense
from pipeline.sparsity import parse
from pipeline.store import Artifact, Store, digest
from pipeline.surgery import apply, dropped

CALIBRATION, IMPORTANCE, DECISION, EVALUATION = "calibration", "importance", "decision", "evaluation"
TRAJECTORY, COUNTERPARTS, LAYERS, MEASURES = "trajectory", "counterparts", "layers", "measures"
# Raise a number when that stage's results change, so that results of older code are not reused.
VERSIONS = {
    CALIBRATION: 1,
    IMPORTANCE: 2,
    DECISION: 2,
    EVALUATION: 1,
    TRAJECTORY: 2,
    COUNTERPARTS: 2,
    LAYERS: 1,
    MEASURES: 1,
}
MEASURES_FILE, TRAJECTORIES_FILE = "measures.parquet", "trajectories.parquet"


@dataclass
class Workbench:
    """Everything one job computes, each as an artifact of the store."""

    settings: Settings
    store: Store
    # The one model in memory, by dtype and whether it is pruned; shared with the baseline's workbench.
    held: dict[tuple[str, bool], PreTrainedModel] = field(default_factory=dict)

    @cached_property
    def dense(self) -> Workbench:
        """The workbench of the unpruned baseline under the same settings."""
        if isinstance(self.settings.pruner, Dense):
            return self
        return Workbench(replace(self.settings, pruner=Dense(name="dense"), sparsity=parse(0)), self.store, self.held)

    @property
    def is_dense(self) -> bool:
        return self.dense is self

    @property
    def is_encoder(self) -> bool:
        return Decoder(self.model(self.dtype, pruned=True)).architecture.encoder

    @cached_property
    def dtype(self) -> str:
        return str(resolve_dtype(self.settings.dtype)).removeprefix("torch.")

    @cached_property
    def _model_identity(self) -> dict[str, Any]:
        return self.settings.model.identity()

    # --- prune -------------------------------------------------------------------------------------------------

    @cached_property
    def decision(self) -> Artifact:
        """What the pruner decides: ``pipeline.pruners.decision``."""
        pruner = self.settings.pruner
        inputs = self._pruning_inputs(pruner.identity()) | {
            "sparsity": self.settings.sparsity.given,
            "seed": self.settings.seed,
        }
        return self._ensure(DECISION, inputs, lambda folder: self._decide(folder, inputs))

    def _pruning_inputs(self, pruner: dict[str, Any]) -> dict[str, Any]:
        inputs: dict[str, Any] = {"model": self._model_identity, "pruner": pruner, "dtype": self.dtype}
        if self.settings.pruner.calibrated:
            inputs["calibration"] = self.settings.calibration.identity()
        return inputs

    def _decide(self, folder: Path, inputs: dict[str, Any]) -> None:
        pruner, settings = self.settings.pruner, self.settings
        # Without calibration there is nothing in a block worth keeping for a second try.
        kept = self.store.unfinished(DECISION, self._inputs(DECISION, inputs)) if pruner.calibrated else None
        context = replace(
            self._context(),
            changes=ChangeFiles(folder, kept),
            scratch=self.store.private("activations"),
            scores=self._importance,
        )
        # Scores may come from the store, or from a pass over this same model.
        decoder = Decoder(self.model(self.dtype, pruned=False))
        torch.manual_seed(settings.seed)
        decision = account(decoder, pruner.decide(decoder, settings.sparsity, context))
        decision.save(folder)
        if is_offloaded(decoder.model):
            self.release()
            return
        apply(decoder.model, decision)
        self.held.clear()
        self.held[self.dtype, not self.is_dense] = decoder.model

    def _importance(self, gone: Dropped) -> list[Score]:
        """The pruner's scores on the model without some sublayers."""
        pruner = self.settings.pruner

        def build(folder: Path) -> None:
            decoder = Decoder(self.model(self.dtype, pruned=False))
            with dropped(decoder, gone):
                rows = pruner.importance(decoder, self._context())
            pd.DataFrame(rows).to_parquet(folder / "scores.parquet", index=False)

        inputs = self._pruning_inputs(pruner.scoring_identity()) | {"dropped": gone}
        artifact = self._ensure(IMPORTANCE, inputs, build)
        return pd.read_parquet(artifact.file("scores.parquet")).to_dict("records")

    def _context(self) -> Context:
        return Context(self._calibration() if self.settings.pruner.calibrated else [])

    def _calibration(self) -> list[torch.Tensor]:
        """The calibration batches, tokenised once for every model with the same tokenizer."""
        source, tokenizer = self.settings.calibration, self.settings.model.tokenizer(self.store)
        inputs = {"calibration": source.identity(), "tokenizer": tokenizer_digest(tokenizer)}
        artifact = self._ensure(CALIBRATION, inputs, lambda folder: save(source.tokenize(tokenizer), folder))
        return batches(load(artifact.path), source.batch_size)

    # --- evaluate ----------------------------------------------------------------------------------------------

    @cached_property
    def evaluation(self) -> Artifact:
        """Scores and samples of the task suite: ``pipeline.evaluate``."""
        task = self.settings.task

        def build(folder: Path) -> None:
            tokenizer = self.settings.model.tokenizer(self.store)
            evaluate(self._writer(self.dtype), tokenizer, task, self.settings.seed, folder)

        inputs = {
            "decision": self.decision.key,
            "task": task.identity(),
            "dtype": self.dtype,
            "seed": self.settings.seed,
        }
        return self._ensure(EVALUATION, inputs, build)

    # --- capture -----------------------------------------------------------------------------------------------

    @cached_property
    def trajectory(self) -> Artifact:
        """The model's own continuations of the probes; the dense one with its whole residual stream."""
        capture = self.settings.capture

        def build(folder: Path) -> None:
            tokenizer = self.settings.model.tokenizer(self.store)
            captured = capture_trajectory(
                self._writer(capture.dtype), tokenizer, PROBES, capture.steps, residual=self.is_dense
            )
            captured.save(folder)

        inputs = {
            "decision": self.decision.key,
            "probes": digest([[probe.name, probe.text] for probe in PROBES]),
            "steps": capture.steps,
            "dtype": capture.dtype,
            "residual": self.is_dense,
        }
        return self._ensure(TRAJECTORY, inputs, build)

    @cached_property
    def counterparts(self) -> Artifact | None:
        """Layer protocol: what each sublayer gives in its pruned form. None if that is nothing, for dropped units."""
        decision = Decision.load(self.decision.path)
        if decision.drops:
            return None
        dense = self.dense.trajectory

        def build(folder: Path) -> None:
            model = self.model(self.settings.capture.dtype, pruned=False)
            trajectory = Trajectory.load(dense.path)
            states = capture_counterparts(model, decision.changes, trajectory, self.settings.capture.steps, progress)
            save_counterparts(states, folder)

        return self._ensure(COUNTERPARTS, {"decision": self.decision.key, "dense": dense.key}, build)

    # --- measure -----------------------------------------------------------------------------------------------

    @cached_property
    def measures(self) -> Artifact:
        """Similarity, orthogonality and KL under the chosen protocols, and the generated tokens side by side."""
        protocols, dense = self.settings.capture.protocols, self.dense.trajectory
        parents = {
            "dense": dense.key,
            "layers": self._layers().key if "layer" in protocols else None,
            "pruned": self.trajectory.key if "free_running" in protocols else None,
            "unit": self.settings.pruner.unit,
            "temperatures": list(self.settings.measure.temperatures),
        }
        return self._ensure(MEASURES, parents, self._measure)

    def _layers(self) -> Artifact:
        """Layer-protocol measures of every sublayer. For dropped units they serve every sparsity."""
        counterparts, dense = self.counterparts, self.dense.trajectory
        temperatures = list(self.settings.measure.temperatures)

        def build(folder: Path) -> None:
            states = load_counterparts(counterparts.path) if counterparts else None
            table = measure_layers(Trajectory.load(dense.path), states, self._head(), temperatures, progress)
            table.to_parquet(folder / MEASURES_FILE, index=False)

        inputs = {
            "dense": dense.key,
            "counterparts": counterparts.key if counterparts else None,
            "temperatures": temperatures,
        }
        return self._ensure(LAYERS, inputs, build)

    def _measure(self, folder: Path) -> None:
        protocols, frames = self.settings.capture.protocols, []
        dense = Trajectory.load(self.dense.trajectory.path)
        if "layer" in protocols:
            layers = pd.read_parquet(self._layers().file(MEASURES_FILE))
            # A pruner that only drops attention says nothing about a dropped MLP.
            kinds = [self.settings.pruner.unit] if self.settings.pruner.unit in (ATTENTION, MLP) else SUBLAYERS
            frames.append(layers[layers.sublayer.isin(kinds)])
        if "free_running" in protocols:
            pruned = Trajectory.load(self.trajectory.path)
            temperatures = list(self.settings.measure.temperatures)
            frames.append(measure_free_running(dense, pruned, self._head(), temperatures))
            side_by_side(dense, pruned).to_parquet(folder / TRAJECTORIES_FILE, index=False)
        pd.concat(frames, ignore_index=True).to_parquet(folder / MEASURES_FILE, index=False)

    def _head(self) -> Head:
        """The output projection, which no pruner touches."""
        dtype = self.settings.capture.dtype
        held = next((model for (kept, _), model in self.held.items() if kept == dtype), None)
        model = held if held is not None else self.model(dtype, pruned=False)
        head = Decoder(model).head
        with resident(head):
            bias = None if head.bias is None else head.bias.detach()
            return Head(head.weight.detach(), bias, getattr(model.config, "final_logit_softcapping", None))

    # --- export ------------------------------------------------------------------------------------------------

    def export(self, target: Path, facts: Mapping[str, Any], card: str) -> None:
        """The pruned model as an ordinary checkpoint: ``pipeline.export``."""
        expected = probe_outputs(self.model(self.dtype, pruned=True))
        decision = Decision.load(self.decision.path)
        self.release()

        def prune() -> PreTrainedModel:
            model = self.settings.model.load(getattr(torch, self.dtype), self.store)
            as_checkpoint(model, decision)
            return model

        write_checkpoint(prune, self.settings.model.tokenizer(self.store), facts, card, target, expected)

    # --- models ------------------------------------------------------------------------------------------------

    def model(self, dtype: str, pruned: bool) -> PreTrainedModel:
        """The model in a dtype, dense or pruned as decided. One at a time is in memory."""
        key = dtype, pruned and not self.is_dense
        if key not in self.held:
            decision = Decision.load(self.decision.path) if key[1] else None
            self.release()
            model = self.settings.model.load(getattr(torch, dtype), self.store)
            if decision is not None:
                apply(model, decision)
            self.held[key] = model
        return self.held[key]

    def _writer(self, dtype: str) -> PreTrainedModel:
        """The pruned model, which has to be one that writes text. Raises ValueError for an encoder."""
        model = self.model(dtype, pruned=True)
        if Decoder(model).architecture.encoder:
            raise ValueError(
                f"model {self.settings.model.name} is an encoder: it can neither continue a text nor weigh answers; "
                "prune and export it with stages=[prune] export=DIR"
            )
        return model

    def release(self) -> None:
        """Let go of the model in memory."""
        self.held.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _ensure(self, stage: str, inputs: dict[str, Any], build: Callable[[Path], None]) -> Artifact:
        return self.store.ensure(stage, self._inputs(stage, inputs), build)

    @staticmethod
    def _inputs(stage: str, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"version": VERSIONS[stage], **inputs}
