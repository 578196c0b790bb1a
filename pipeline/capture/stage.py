"""Stages of capture: continuations and states under the four protocols, of the job and of its baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from pipeline.capture.counterparts import capture_counterparts, has_counterparts, save_counterparts
from pipeline.capture.options import decision_states, load_options, probe_questions, save_options, task_questions
from pipeline.common.terminal import progress
from pipeline.config.schema import FREE_RUNNING, LAYER, OPTIONS, TEACHER_FORCED
from pipeline.model.generation import GREEDY, SAMPLE, Decoding
from pipeline.model.trajectory import Trajectory, capture_forced, capture_trajectory
from pipeline.prune.pruned_model import decision_of, writer
from pipeline.prune.stage import PruningDecision
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Artifact
from pipeline.store.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

_FORCED = "teacher_forced.safetensors"


def captured(bench: Workbench) -> dict[str, Artifact]:
    """Make the artifacts of the protocols, by role: the dense trajectory, and the pruned model's part in each."""
    protocols = bench.settings.capture.protocols
    steps: dict[str, Callable[[], Artifact | None]] = {"dense trajectory": lambda: bench.dense.make(Continuations)}
    if OPTIONS in protocols:
        steps["dense options"] = lambda: bench.dense.make(OptionStates)
    if not bench.is_dense:
        if FREE_RUNNING in protocols:
            steps["trajectory"] = lambda: bench.make(Continuations)
        if TEACHER_FORCED in protocols:
            steps["teacher forced"] = lambda: bench.make(TeacherForced)
        if OPTIONS in protocols:
            steps["options"] = lambda: bench.make(OptionStates)
        # Last, since it needs the dense model in the place of the pruned one.
        if LAYER in protocols:
            steps["counterparts"] = lambda: counterparts_of(bench)
    return {role: artifact for role, artifact in bench.store.in_turn(steps).items() if artifact}


def counterparts_of(bench: Workbench) -> Artifact | None:
    """Make the counterparts; None where units are dropped and nothing else."""
    return bench.make(Counterparts) if has_counterparts(decision_of(bench)) else None


@dataclass
class Continuations(Stage):
    """The model's own continuations of the probes; the dense one with its whole residual stream."""

    bench: Workbench
    name = "trajectory"
    version = 4

    @property
    def _decoding(self) -> Decoding:
        settings = self.bench.settings
        return Decoding(settings.capture.decoding, settings.capture.temperature, settings.seed)

    def inputs(self) -> dict[str, Any]:
        bench, capture = self.bench, self.bench.settings.capture
        return {
            "decision": bench.make(PruningDecision).key,
            "probes": [asdict(probe) for probe in bench.settings.probes],
            "steps": capture.steps,
            "decoding": vars(self._decoding) if capture.decoding == SAMPLE else GREEDY,
            "dtype": capture.dtype,
            "residual": bench.is_dense,
        }

    def build(self, folder: Path) -> None:
        bench, capture = self.bench, self.bench.settings.capture
        model, probes = writer(bench, capture.dtype), bench.settings.probes
        found = capture_trajectory(model, bench.tokenizer, probes, capture.steps, bench.is_dense, self._decoding)
        found.save(folder)


def dense_trajectory(bench: Workbench) -> Trajectory:
    """Make and read the dense model's continuations with their states."""
    return Trajectory.load(bench.dense.make(Continuations).path)


def _beside_dense(bench: Workbench) -> dict[str, Any]:
    """Return the inputs of a stage that runs this job's model on the dense model's continuations."""
    return {"decision": bench.make(PruningDecision).key, "dense": bench.dense.make(Continuations).key}


@dataclass
class TeacherForced(Stage):
    """Teacher-forced protocol: final states of this model on the dense model's trajectory."""

    bench: Workbench
    name = "teacher_forced"
    version = 2

    def inputs(self) -> dict[str, Any]:
        return _beside_dense(self.bench)

    def build(self, folder: Path) -> None:
        bench = self.bench
        dense = dense_trajectory(bench)
        save_file({"final": capture_forced(writer(bench, bench.settings.capture.dtype), dense)}, folder / _FORCED)


def load_forced(artifact: Artifact) -> Tensor:
    """Read the final states (N, D) of `TeacherForced`."""
    return load_file(artifact.file(_FORCED))["final"]


@dataclass
class Counterparts(Stage):
    """Layer protocol: the state after each sublayer in its pruned form, on the dense model's inputs."""

    bench: Workbench
    name = "counterparts"
    version = 4

    def inputs(self) -> dict[str, Any]:
        return _beside_dense(self.bench)

    def build(self, folder: Path) -> None:
        bench = self.bench
        dense = dense_trajectory(bench)
        model = bench.model(bench.settings.capture.dtype)
        save_counterparts(capture_counterparts(model, decision_of(bench), dense, progress), folder)


@dataclass
class OptionStates(Stage):
    """Options protocol: the questions, and this model's states at the decision step."""

    bench: Workbench
    name = "options"
    version = 2

    def inputs(self) -> dict[str, Any]:
        bench, settings = self.bench, self.bench.settings
        return {
            "decision": bench.make(PruningDecision).key,
            "probes": [asdict(probe) for probe in settings.probes if probe.options],
            "task": settings.task.identity() | {"limit": None},
            "items": settings.capture.option_items,
            "seed": settings.seed,
            "dtype": settings.capture.dtype,
        }

    def build(self, folder: Path) -> None:
        bench, settings = self.bench, self.bench.settings
        model = writer(bench, settings.capture.dtype)
        if bench.is_dense:
            questions = probe_questions(settings.probes, bench.tokenizer)
            items = settings.capture.option_items
            questions += task_questions(settings.task, items, settings.seed, model, bench.tokenizer)
        else:
            questions, _ = load_options(bench.dense.make(OptionStates).path)
        save_options(questions, decision_states(model, questions), folder)
