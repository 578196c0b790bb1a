"""The stages of a job after pruning, as artifacts: evaluation, capture and measures, of the job and its baseline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from pipeline.capture import (
    Trajectory,
    capture_counterparts,
    capture_trajectory,
    load_counterparts,
    save_counterparts,
)
from pipeline.console import progress
from pipeline.decoder import ATTENTION, MLP, SUBLAYERS, Decoder
from pipeline.evaluate import evaluate
from pipeline.measure import measure_free_running, measure_layers, side_by_side
from pipeline.measures.compare import Head
from pipeline.model_stages import COUNTERPARTS, EVALUATION, LAYERS, MEASURES, TRAJECTORY, ModelStages
from pipeline.offload import resident
from pipeline.probes import PROBES
from pipeline.pruners.decision import Decision
from pipeline.pruners.dense import Dense
from pipeline.sparsity import parse
from pipeline.store import Artifact, digest

MEASURES_FILE, TRAJECTORIES_FILE = "measures.parquet", "trajectories.parquet"


@dataclass
class Workbench(ModelStages):
    """Everything one job computes, each as an artifact of the store."""

    @cached_property
    def dense(self) -> Workbench:
        """The workbench of the unpruned baseline under the same settings."""
        if self.is_dense:
            return self
        return Workbench(replace(self.settings, pruner=Dense(name="dense"), sparsity=parse(0)), self.store, self.held)

    # --- evaluate ----------------------------------------------------------------------------------------------

    @cached_property
    def evaluation(self) -> Artifact:
        """Scores and samples of the task suite: ``pipeline.evaluate``."""
        task = self.settings.task

        def build(folder: Path) -> None:
            tokenizer = self.settings.model.tokenizer(self.store)
            evaluate(self.writer(self.dtype), tokenizer, task, self.settings.seed, folder)

        inputs = {
            "decision": self.decision.key,
            "task": task.identity(),
            "dtype": self.dtype,
            "seed": self.settings.seed,
        }
        return self.ensure(EVALUATION, inputs, build)

    # --- capture -----------------------------------------------------------------------------------------------

    @cached_property
    def trajectory(self) -> Artifact:
        """The model's own continuations of the probes; the dense one with its whole residual stream."""
        capture = self.settings.capture

        def build(folder: Path) -> None:
            tokenizer = self.settings.model.tokenizer(self.store)
            captured = capture_trajectory(
                self.writer(capture.dtype), tokenizer, PROBES, capture.steps, residual=self.is_dense
            )
            captured.save(folder)

        inputs = {
            "decision": self.decision.key,
            "probes": digest([[probe.name, probe.text] for probe in PROBES]),
            "steps": capture.steps,
            "dtype": capture.dtype,
            "residual": self.is_dense,
        }
        return self.ensure(TRAJECTORY, inputs, build)

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

        return self.ensure(COUNTERPARTS, {"decision": self.decision.key, "dense": dense.key}, build)

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
        return self.ensure(MEASURES, parents, self._measure)

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
        return self.ensure(LAYERS, inputs, build)

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
            return Head(head.weight.detach(), bias, Decoder(model).logit_cap)
