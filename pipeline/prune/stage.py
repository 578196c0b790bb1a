"""The stages of pruning: calibration text, its continuations, scores of units, and the decision."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.data.calibration.base import batches, load, save
from pipeline.model.full_proof import full_proof
from pipeline.model.offload import is_offloaded
from pipeline.model.special_tokens import in_words
from pipeline.model.tokens import tokenizer_digest
from pipeline.model.trajectory import Trajectory
from pipeline.prune.base import Candidates, Context, Dropped
from pipeline.prune.calibration import context_of, own_text, states_on
from pipeline.prune.decide import carry_out, decide, score
from pipeline.prune.decision import ChangeFiles
from pipeline.prune.shared_setup import SharedSetup
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Artifact
from pipeline.store.provenance import Meter
from pipeline.store.stage import Stage

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
_SCORES = "scores.parquet"


def pruned(bench: Workbench) -> dict[str, Artifact]:
    """Make the artifacts of the stage ``prune`` of a job, by role."""
    return {"structure": bench.make(ProvenStructure), "decision": bench.make(PruningDecision)}


@dataclass
class ProvenStructure(Stage):
    """The structure of the dense model with its proof: see ``pipeline.model.full_proof``."""

    bench: Workbench
    name = "structure"
    version = 2

    def inputs(self) -> dict[str, Any]:
        return {"model": self.bench.model_identity, "dtype": self.bench.dtype}

    def build(self, folder: Path) -> None:
        proof = full_proof(self.bench.model(self.bench.dtype))
        (folder / "structure.json").write_text(json.dumps(proof.plain(), indent=1), encoding="utf-8")


@dataclass
class CalibrationTokens(Stage):
    """The calibration text, tokenised once for every model with the same tokenizer."""

    bench: Workbench
    name = "calibration"
    version = 2

    def inputs(self) -> dict[str, Any]:
        source = self.bench.settings.calibration
        return {"calibration": source.identity(), "tokenizer": tokenizer_digest(self.bench.tokenizer)}

    def build(self, folder: Path) -> None:
        log.info("  calibration text: %s", in_words(self.bench.tokenizer))
        save(self.bench.settings.calibration.tokenize(self.bench.tokenizer), folder)


@dataclass
class Continued(Stage):
    """The calibration text and the dense model's final states on it; the model may write the text itself."""

    bench: Workbench
    name = "continued"
    version = 3

    def inputs(self) -> dict[str, Any]:
        bench = self.bench
        return {
            "model": bench.model_identity,
            "dtype": bench.dtype,
            "calibration": bench.settings.calibration.identity(),
        }

    def build(self, folder: Path) -> None:
        bench, source = self.bench, self.bench.settings.calibration
        model = bench.model(bench.dtype)
        states_on(model, bench.tokenizer, source, lambda: bench.once(calibration_of)).save(folder)


@dataclass
class Importance(Stage):
    """The pruner's scores on the model without some sublayers, of the candidates if there are any."""

    bench: Workbench
    setup: SharedSetup
    gone: Dropped
    candidates: Candidates = ()
    name = "importance"
    version = 3

    def inputs(self) -> dict[str, Any]:
        settings, pruner = self.bench.settings, self.bench.settings.pruner
        inputs = _pruning_inputs(self.bench, pruner.scoring_identity())
        inputs["dropped"] = {kind: list(layers) for kind, layers in self.gone.items() if layers}
        if pruner.seeded:
            inputs["seed"] = settings.seed
        if self.candidates:
            inputs["candidates"] = sorted([kind, layer] for kind, layer in self.candidates)
        return inputs

    def build(self, folder: Path) -> None:
        bench, settings, pruner = self.bench, self.bench.settings, self.bench.settings.pruner
        model = bench.model(bench.dtype)
        context = replace(_context(bench), candidates=self.candidates, setup=self.setup, seed=settings.seed)
        rows = score(model, f"model {settings.model.name}", pruner, self.gone, context)
        rows.to_parquet(folder / _SCORES, index=False)


@dataclass
class PruningDecision(Stage):
    """The pruner's decision: see ``pipeline.prune.decision``."""

    bench: Workbench
    name = "decision"
    version = 4

    def inputs(self) -> dict[str, Any]:
        settings = self.bench.settings
        inputs = _pruning_inputs(self.bench, settings.pruner.identity())
        return inputs | {"sparsity": settings.sparsity.given, "seed": settings.seed}

    def build(self, folder: Path) -> None:
        bench, settings, pruner = self.bench, self.bench.settings, self.bench.settings.pruner
        # Without calibration, the work on a block is not worth keeping for a second try.
        kept = bench.store.unfinished(self.name, self.facts) if pruner.calibrated else None
        # Scores may come from the store, or from a pass over this same model.
        model = bench.model(bench.dtype)
        context = replace(
            _context(bench),
            seed=settings.seed,
            changes=ChangeFiles(folder, kept),
            scratch=bench.store.private("activations"),
        )

        def scoring(setup: SharedSetup, gone: Dropped, candidates: Candidates) -> pd.DataFrame:
            return pd.read_parquet(Importance(bench, setup, gone, candidates).make(bench.store).file(_SCORES))

        decision = decide(model, pruner, settings.sparsity, context, scoring)
        decision.save(folder)
        if decision.forward_tokens is not None:
            Meter.note("forward_tokens", decision.forward_tokens)
        if is_offloaded(model):
            bench.release()
            return
        carry_out(model, f"model {settings.model.name}", pruner, decision)
        bench.keep(model, pruned=not bench.is_dense)


def _pruning_inputs(bench: Workbench, pruner: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs that every score and decision depends on."""
    inputs: dict[str, Any] = {"model": bench.model_identity, "pruner": pruner, "dtype": bench.dtype}
    if bench.settings.pruner.calibrated:
        inputs["calibration"] = bench.settings.calibration.identity()
        if sizes := bench.settings.batch_sizes(bench.dtype):
            inputs["batch_size"] = sizes["calibration"]
    return inputs


def continued_of(bench: Workbench) -> Trajectory:
    """Return the dense model's states on the calibration text."""
    return Trajectory.load(bench.make(Continued).path)


def calibration_of(bench: Workbench) -> list[torch.Tensor]:
    """Return the calibration batches, int64 (sequences, tokens) of equal length each."""
    source = bench.settings.calibration
    if source.generated:
        return own_text(bench.once(continued_of), source.batch_size)
    return batches(load(bench.make(CalibrationTokens).path), source.batch_size)


def _context(bench: Workbench) -> Context:
    """Return the inputs that a pruner may read besides the model."""
    pruner, source = bench.settings.pruner, bench.settings.calibration
    return context_of(pruner, source, lambda: bench.once(calibration_of), lambda: bench.once(continued_of))
