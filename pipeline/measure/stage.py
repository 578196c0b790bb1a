"""Stages of measuring: similarity, orthogonality and KL of captured states, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.capture.counterparts import load_counterparts
from pipeline.capture.options import load_options
from pipeline.capture.stage import (
    Continuations,
    OptionStates,
    TeacherForced,
    counterparts_of,
    dense_trajectory,
    load_forced,
)
from pipeline.common.terminal import progress
from pipeline.config.schema import FREE_RUNNING, LAYER, OPTIONS, TEACHER_FORCED
from pipeline.measure.options import measure_options
from pipeline.measure.protocols import measure_free_running, measure_layers, measure_teacher_forced, side_by_side
from pipeline.model.architectures import ATTENTION, MLP, SUBLAYERS
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.head_proof import head_of
from pipeline.model.trajectory import Trajectory
from pipeline.prune.workbench import Workbench
from pipeline.store import table_names
from pipeline.store.artifacts import Artifact
from pipeline.store.stage import Stage

FINAL_NORM = "final_norm"


def measured(bench: Workbench) -> dict[str, Artifact]:
    """Make the measures under the chosen protocols, by role; the dense model has none."""
    if bench.is_dense:
        return {}
    options = OPTIONS in bench.settings.capture.protocols
    return {"measures": bench.make(Measures)} | ({"option measures": bench.make(OptionMeasures)} if options else {})


def head_and_norm(bench: Workbench) -> tuple[Head, torch.nn.Module | None]:
    """Return the output projection and the final norm, which no pruner touches."""
    dtype = bench.settings.capture.dtype
    held = next((model for (kept, _), model in bench.held.items() if kept == dtype), None)
    decoder = Decoder(held if held is not None else bench.model(dtype))
    return head_of(decoder), decoder.final_norm


@dataclass
class LayerMeasures(Stage):
    """Layer-protocol measures of every sublayer. For dropped units they serve every sparsity."""

    bench: Workbench
    name = "layers"
    version = 3

    def inputs(self) -> dict[str, Any]:
        bench, measure = self.bench, self.bench.settings.measure
        counterparts = counterparts_of(bench)
        return {
            "dense": bench.dense.make(Continuations).key,
            "counterparts": counterparts.key if counterparts else None,
            "temperatures": list(measure.temperatures),
            "readout": measure.readout,
        }

    def build(self, folder: Path) -> None:
        bench, measure = self.bench, self.bench.settings.measure
        counterparts = counterparts_of(bench)
        states = load_counterparts(counterparts.path) if counterparts else None
        head, norm = head_and_norm(bench)
        dense = dense_trajectory(bench)
        readout = norm if measure.readout == FINAL_NORM else None
        table = measure_layers(dense, states, head, list(measure.temperatures), progress, readout)
        table.to_parquet(folder / table_names.MEASURES, index=False)


@dataclass
class Measures(Stage):
    """Similarity, orthogonality and KL under the chosen protocols, as tables: see ``pipeline.tables.write``."""

    bench: Workbench
    name = "measures"
    version = 4

    def inputs(self) -> dict[str, Any]:
        bench, protocols = self.bench, self.bench.settings.capture.protocols
        return {
            "dense": bench.dense.make(Continuations).key,
            "layers": bench.make(LayerMeasures).key if LAYER in protocols else None,
            "forced": bench.make(TeacherForced).key if TEACHER_FORCED in protocols else None,
            "pruned": bench.make(Continuations).key if FREE_RUNNING in protocols else None,
            "unit": bench.settings.pruner.unit,
            "temperatures": list(bench.settings.measure.temperatures),
        }

    def build(self, folder: Path) -> None:
        bench, protocols = self.bench, self.bench.settings.capture.protocols
        temperatures, unit = list(bench.settings.measure.temperatures), bench.settings.pruner.unit
        dense, frames = dense_trajectory(bench), []
        if LAYER in protocols:
            layers = pd.read_parquet(bench.make(LayerMeasures).file(table_names.MEASURES))
            # A pruner that only drops attention says nothing about a dropped MLP.
            kinds = [unit] if unit in (ATTENTION, MLP) else SUBLAYERS
            frames.append(layers[layers.sublayer.isin(kinds)])
        head, _ = head_and_norm(bench)
        if TEACHER_FORCED in protocols:
            forced = load_forced(bench.make(TeacherForced))
            frames.append(measure_teacher_forced(dense, forced, head, temperatures))
        if FREE_RUNNING in protocols:
            pruned = Trajectory.load(bench.make(Continuations).path)
            frames.append(measure_free_running(dense, pruned, head, temperatures))
            side_by_side(dense, pruned).to_parquet(folder / table_names.TRAJECTORIES, index=False)
        if frames:
            pd.concat(frames, ignore_index=True).to_parquet(folder / table_names.MEASURES, index=False)
        _prompts(bench).to_parquet(folder / table_names.PROMPTS, index=False)


def _prompts(bench: Workbench) -> pd.DataFrame:
    steps = bench.settings.capture.steps
    rows = [
        {"prompt": probe.name, "format": probe.format, "steps": min(probe.steps or steps, steps), "text": probe.prompt}
        for probe in bench.settings.probes
    ]
    return pd.DataFrame(rows)


@dataclass
class OptionMeasures(Stage):
    """Measures of the options protocol, which depend on the task suite and its questions."""

    bench: Workbench
    name = "option_measures"
    version = 2

    def inputs(self) -> dict[str, Any]:
        bench = self.bench
        return {
            "options": bench.make(OptionStates).key,
            "dense": bench.dense.make(OptionStates).key,
            "temperatures": list(bench.settings.measure.temperatures),
        }

    def build(self, folder: Path) -> None:
        bench, temperatures = self.bench, list(self.bench.settings.measure.temperatures)
        questions, dense = load_options(bench.dense.make(OptionStates).path)
        if not questions:
            return
        _, pruned = load_options(bench.make(OptionStates).path)
        head, _ = head_and_norm(bench)
        seed, tokenizer = bench.settings.seed, bench.tokenizer
        sets, tokens = measure_options(questions, dense, pruned, head, temperatures, tokenizer, seed)
        sets.to_parquet(folder / table_names.OPTIONS, index=False)
        tokens.to_parquet(folder / table_names.OPTION_TOKENS, index=False)
