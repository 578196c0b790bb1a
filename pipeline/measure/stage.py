"""The stages of a job after evaluation, as artifacts: capture and measures, of the job and its baseline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from pipeline.capture.counterparts import capture_counterparts, load_counterparts, save_counterparts
from pipeline.capture.options import decision_states, load_options, probe_questions, save_options, task_questions
from pipeline.common.terminal import progress
from pipeline.evaluate.stage import EvaluationStages
from pipeline.measure.options import measure_options
from pipeline.measure.protocols import (
    FREE_RUNNING,
    LAYER,
    TEACHER_FORCED,
    measure_free_running,
    measure_layers,
    measure_teacher_forced,
    side_by_side,
)
from pipeline.model.decoder import ATTENTION, MLP, SUBLAYERS, Decoder
from pipeline.model.generation import GREEDY, SAMPLE, Decoding
from pipeline.model.head import Head
from pipeline.model.output_head import head_of
from pipeline.model.trajectory import Trajectory, capture_forced, capture_trajectory
from pipeline.prune.decision import Decision
from pipeline.prune.stage import (
    COUNTERPARTS,
    FORCED,
    LAYERS,
    MEASURES,
    OPTION_MEASURES,
    OPTIONS,
    TRAJECTORY,
)
from pipeline.store import table_names
from pipeline.store.artifacts import Artifact

FINAL_NORM = "final_norm"
_FORCED = "teacher_forced.safetensors"


@dataclass
class Workbench(EvaluationStages):
    """Everything one job computes, each as an artifact of the store."""

    # --- capture -----------------------------------------------------------------------------------------------

    @cached_property
    def trajectory(self) -> Artifact:
        """The model's own continuations of the probes; the dense one with its whole residual stream."""
        capture = self.settings.capture
        decoding = Decoding(capture.decoding, capture.temperature, self.settings.seed)

        def build(folder: Path) -> None:
            captured = capture_trajectory(
                self.writer(capture.dtype),
                self._tokenizer,
                self.settings.probes,
                capture.steps,
                self.is_dense,
                decoding,
            )
            captured.save(folder)

        inputs = {
            "decision": self.decision.key,
            "probes": [asdict(probe) for probe in self.settings.probes],
            "steps": capture.steps,
            "decoding": vars(decoding) if capture.decoding == SAMPLE else GREEDY,
            "dtype": capture.dtype,
            "residual": self.is_dense,
        }
        return self.ensure(TRAJECTORY, inputs, build)

    @cached_property
    def forced(self) -> Artifact:
        """Teacher-forced protocol: final states of this model on the dense model's trajectory."""
        dense = self.dense.trajectory

        def build(folder: Path) -> None:
            model = self.writer(self.settings.capture.dtype)
            save_file({"final": capture_forced(model, Trajectory.load(dense.path))}, folder / _FORCED)

        return self.ensure(FORCED, {"decision": self.decision.key, "dense": dense.key}, build)

    @cached_property
    def counterparts(self) -> Artifact | None:
        """Layer protocol: what each sublayer gives in its pruned form. None if that is nothing, for dropped units."""
        decision = Decision.load(self.decision.path)
        if decision.drops:
            return None
        dense = self.dense.trajectory

        def build(folder: Path) -> None:
            model = self.model(self.settings.capture.dtype, pruned=False)
            states = capture_counterparts(model, decision.changes, Trajectory.load(dense.path), progress)
            save_counterparts(states, folder)

        return self.ensure(COUNTERPARTS, {"decision": self.decision.key, "dense": dense.key}, build)

    @cached_property
    def options(self) -> Artifact:
        """Options protocol: the questions, and this model's states where it decides."""
        settings = self.settings

        def build(folder: Path) -> None:
            model = self.writer(settings.capture.dtype)
            if self.is_dense:
                questions = probe_questions(settings.probes, self._tokenizer)
                items = settings.capture.option_items
                questions += task_questions(settings.task, items, settings.seed, model, self._tokenizer)
            else:
                questions, _ = load_options(self.dense.options.path)
            save_options(questions, decision_states(model, questions), folder)

        inputs = {
            "decision": self.decision.key,
            "probes": [asdict(probe) for probe in settings.probes if probe.options],
            "task": settings.task.identity() | {"limit": None},
            "items": settings.capture.option_items,
            "seed": settings.seed,
            "dtype": settings.capture.dtype,
        }
        return self.ensure(OPTIONS, inputs, build)

    # --- measure -----------------------------------------------------------------------------------------------

    @cached_property
    def measures(self) -> Artifact:
        """Similarity, orthogonality and KL under the chosen protocols, as tables: see ``pipeline.tables.collect``."""
        protocols, dense = self.settings.capture.protocols, self.dense.trajectory
        parents = {
            "dense": dense.key,
            "layers": self._layers().key if LAYER in protocols else None,
            "forced": self.forced.key if TEACHER_FORCED in protocols else None,
            "pruned": self.trajectory.key if FREE_RUNNING in protocols else None,
            "unit": self.settings.pruner.unit,
            "temperatures": list(self.settings.measure.temperatures),
        }
        return self.ensure(MEASURES, parents, self._measure)

    def _layers(self) -> Artifact:
        """Layer-protocol measures of every sublayer. For dropped units they serve every sparsity."""
        counterparts, dense = self.counterparts, self.dense.trajectory
        temperatures, readout = list(self.settings.measure.temperatures), self.settings.measure.readout

        def build(folder: Path) -> None:
            states = load_counterparts(counterparts.path) if counterparts else None
            head, norm = self._head()
            table = measure_layers(
                Trajectory.load(dense.path),
                states,
                head,
                temperatures,
                progress,
                norm if readout == FINAL_NORM else None,
            )
            table.to_parquet(folder / table_names.MEASURES, index=False)

        inputs = {
            "dense": dense.key,
            "counterparts": counterparts.key if counterparts else None,
            "temperatures": temperatures,
            "readout": readout,
        }
        return self.ensure(LAYERS, inputs, build)

    def _measure(self, folder: Path) -> None:
        protocols, temperatures = self.settings.capture.protocols, list(self.settings.measure.temperatures)
        dense, frames = Trajectory.load(self.dense.trajectory.path), []
        if LAYER in protocols:
            layers = pd.read_parquet(self._layers().file(table_names.MEASURES))
            # A pruner that only drops attention says nothing about a dropped MLP.
            kinds = [self.settings.pruner.unit] if self.settings.pruner.unit in (ATTENTION, MLP) else SUBLAYERS
            frames.append(layers[layers.sublayer.isin(kinds)])
        head, _ = self._head()
        if TEACHER_FORCED in protocols:
            forced = load_file(self.forced.file(_FORCED))["final"]
            frames.append(measure_teacher_forced(dense, forced, head, temperatures))
        if FREE_RUNNING in protocols:
            pruned = Trajectory.load(self.trajectory.path)
            frames.append(measure_free_running(dense, pruned, head, temperatures))
            side_by_side(dense, pruned).to_parquet(folder / table_names.TRAJECTORIES, index=False)
        if frames:
            pd.concat(frames, ignore_index=True).to_parquet(folder / table_names.MEASURES, index=False)
        self._prompts().to_parquet(folder / table_names.PROMPTS, index=False)

    @cached_property
    def option_measures(self) -> Artifact:
        """The options protocol's measures, which depend on the task suite and its questions."""
        temperatures, seed = list(self.settings.measure.temperatures), self.settings.seed
        parents = {"options": self.options.key, "dense": self.dense.options.key, "temperatures": temperatures}

        def build(folder: Path) -> None:
            questions, dense = load_options(self.dense.options.path)
            if not questions:
                return
            _, pruned = load_options(self.options.path)
            head, _ = self._head()
            sets, tokens = measure_options(questions, dense, pruned, head, temperatures, self._tokenizer, seed)
            sets.to_parquet(folder / table_names.OPTIONS, index=False)
            tokens.to_parquet(folder / table_names.OPTION_TOKENS, index=False)

        return self.ensure(OPTION_MEASURES, parents, build)

    def _prompts(self) -> pd.DataFrame:
        steps = self.settings.capture.steps
        rows = [
            {
                "prompt": probe.name,
                "format": probe.format,
                "steps": min(probe.steps or steps, steps),
                "text": probe.prompt,
            }
            for probe in self.settings.probes
        ]
        return pd.DataFrame(rows)

    def _head(self) -> tuple[Head, torch.nn.Module | None]:
        """The output projection and the final norm, which no pruner touches."""
        dtype = self.settings.capture.dtype
        held = next((model for (kept, _), model in self.held.items() if kept == dtype), None)
        model = held if held is not None else self.model(dtype, pruned=False)
        decoder = Decoder(model)
        return head_of(decoder), decoder.final_norm
