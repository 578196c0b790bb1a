"""Stages of measuring: similarity, orthogonality and KL of captured states, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

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
from pipeline.config.schema import FINAL_NORM, FREE_RUNNING, LAYER, OPTIONS, TEACHER_FORCED
from pipeline.measure.base import FurtherMeasure, Measure, SetMeasure
from pipeline.measure.options import measure_options
from pipeline.measure.over_positions import agreement
from pipeline.measure.protocols import kinds_of, measure_layers, measure_protocols, side_by_side
from pipeline.measure.sets import Pair, forced_pair, free_pair, layer_pairs, measure_sets
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.proof import head_of
from pipeline.model.trajectory import Trajectory
from pipeline.prune.workbench import Workbench
from pipeline.store import table_names
from pipeline.store.artifacts import Artifact
from pipeline.store.stage import Stage

if TYPE_CHECKING:
    import torch

Further = TypeVar("Further", bound=FurtherMeasure)


def measured(bench: Workbench) -> dict[str, Artifact]:
    """Make the measures under the chosen protocols, by role; the dense model has none."""
    if bench.is_dense:
        return {}
    found = {"measures": bench.make(Measures)}
    if OPTIONS in bench.settings.capture.protocols:
        found["option measures"] = bench.make(OptionMeasures)
    if chosen(bench, SetMeasure) and set(bench.settings.capture.protocols) - {OPTIONS}:
        found["set measures"] = bench.make(SetMeasures)
    return found


def chosen(bench: Workbench, kind: type[Further]) -> list[Further]:
    """Return the further measures of a kind that this job asks for."""
    return [measure for measure in bench.settings.extra if isinstance(measure, kind)]


def _identities(measures: Sequence[FurtherMeasure]) -> dict[str, Any]:
    """Return the input of a stage that computes further measures; none without them, so that keys stay."""
    return {"extra": [measure.identity() for measure in measures]} if measures else {}


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
    version = 4

    def inputs(self) -> dict[str, Any]:
        bench, measure = self.bench, self.bench.settings.measure
        counterparts = counterparts_of(bench)
        return {
            "dense": bench.dense.make(Continuations).key,
            "counterparts": counterparts.key if counterparts else None,
            "temperatures": list(measure.temperatures),
            "readout": measure.readout,
            **_identities(chosen(bench, Measure)),
        }

    def build(self, folder: Path) -> None:
        bench, measure = self.bench, self.bench.settings.measure
        counterparts = counterparts_of(bench)
        states = load_counterparts(counterparts.path) if counterparts else None
        head, norm = head_and_norm(bench)
        dense = dense_trajectory(bench)
        readout = norm if measure.readout == FINAL_NORM else None
        temperatures, extra = list(measure.temperatures), chosen(bench, Measure)
        table = measure_layers(dense, states, head, temperatures, progress, readout, extra)
        table.to_parquet(folder / table_names.MEASURES, index=False)


@dataclass
class Measures(Stage):
    """Similarity, orthogonality and KL under the chosen protocols, as tables: see ``pipeline.tables.write``."""

    bench: Workbench
    name = "measures"
    version = 5

    def inputs(self) -> dict[str, Any]:
        bench, protocols = self.bench, self.bench.settings.capture.protocols
        return {
            "dense": bench.dense.make(Continuations).key,
            "layers": bench.make(LayerMeasures).key if LAYER in protocols else None,
            "forced": bench.make(TeacherForced).key if TEACHER_FORCED in protocols else None,
            "pruned": bench.make(Continuations).key if FREE_RUNNING in protocols else None,
            "unit": bench.settings.pruner.unit,
            "temperatures": list(bench.settings.measure.temperatures),
            **_identities(chosen(bench, Measure)),
        }

    def build(self, folder: Path) -> None:
        bench, protocols = self.bench, self.bench.settings.capture.protocols
        dense, layers, forced, pruned = dense_trajectory(bench), None, None, None
        if LAYER in protocols:
            layers = pd.read_parquet(bench.make(LayerMeasures).file(table_names.MEASURES))
        head, _ = head_and_norm(bench)
        if TEACHER_FORCED in protocols:
            forced = load_forced(bench.make(TeacherForced))
        if FREE_RUNNING in protocols:
            pruned = Trajectory.load(bench.make(Continuations).path)
            side_by_side(dense, pruned).to_parquet(folder / table_names.TRAJECTORIES, index=False)
        temperatures, unit = list(bench.settings.measure.temperatures), bench.settings.pruner.unit
        extra = chosen(bench, Measure)
        measures = measure_protocols(dense, head, temperatures, unit, layers, forced, pruned, extra)
        if measures is not None:
            measures.to_parquet(folder / table_names.MEASURES, index=False)
            agreement(measures).to_parquet(folder / table_names.AGREEMENT, index=False)
        _prompts(bench).to_parquet(folder / table_names.PROMPTS, index=False)


def _prompts(bench: Workbench) -> pd.DataFrame:
    steps = bench.settings.capture.steps
    rows = [
        {"prompt": probe.name, "format": probe.format, "steps": min(probe.steps or steps, steps), "text": probe.prompt}
        for probe in bench.settings.probes
    ]
    return pd.DataFrame(rows)


@dataclass
class SetMeasures(Stage):
    """Further measures of sets of states under the chosen protocols."""

    bench: Workbench
    name = "set_measures"
    version = 1

    def inputs(self) -> dict[str, Any]:
        bench, protocols = self.bench, self.bench.settings.capture.protocols
        counterparts = counterparts_of(bench) if LAYER in protocols else None
        return {
            "dense": bench.dense.make(Continuations).key,
            "layers": list(kinds_of(bench.settings.pruner.unit)) if LAYER in protocols else None,
            "counterparts": counterparts.key if counterparts else None,
            "forced": bench.make(TeacherForced).key if TEACHER_FORCED in protocols else None,
            "pruned": bench.make(Continuations).key if FREE_RUNNING in protocols else None,
            **_identities(chosen(bench, SetMeasure)),
        }

    def build(self, folder: Path) -> None:
        table = measure_sets(chosen(self.bench, SetMeasure), self._pairs())
        table.to_parquet(folder / table_names.SET_MEASURES, index=False)

    def _pairs(self) -> Iterator[Pair]:
        bench, protocols = self.bench, self.bench.settings.capture.protocols
        dense = dense_trajectory(bench)
        if LAYER in protocols:
            counterparts = counterparts_of(bench)
            yield from layer_pairs(
                dense,
                load_counterparts(counterparts.path) if counterparts else None,
                kinds_of(bench.settings.pruner.unit),
            )
        if TEACHER_FORCED in protocols:
            yield forced_pair(dense, load_forced(bench.make(TeacherForced)))
        if FREE_RUNNING in protocols:
            yield free_pair(dense, Trajectory.load(bench.make(Continuations).path))


@dataclass
class OptionMeasures(Stage):
    """Measures of the options protocol, which depend on the task suite and its questions."""

    bench: Workbench
    name = "option_measures"
    version = 3

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
