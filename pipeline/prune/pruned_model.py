"""The pruned model of a job: decided once, in memory when a stage asks for it, written as a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.model.decoder import Decoder
from pipeline.model.memory import skeleton_of
from pipeline.model.model_types import is_encoder as is_encoder_type
from pipeline.model.sources.base import writes_text
from pipeline.prune.checkpoint import Written, as_checkpoint, probe_outputs, write_checkpoint
from pipeline.prune.decision import Decision
from pipeline.prune.stage import PruningDecision
from pipeline.prune.surgery import apply
from pipeline.prune.workbench import Workbench

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def decision_of(bench: Workbench) -> Decision:
    """Return the decision of the job's pruner, made now if it is not in the store."""
    return Decision.load(bench.make(PruningDecision).path)


def pruned_model(bench: Workbench, dtype: str) -> PreTrainedModel:
    """Return the pruned model of a job in a dtype; that of the baseline is the dense one."""
    if bench.is_dense:
        return bench.model(dtype)
    # First, since a decision may need the dense model in memory.
    decision = decision_of(bench)
    return bench.model(dtype, lambda model: apply(model, decision))


def writer(bench: Workbench, dtype: str) -> PreTrainedModel:
    """Return the pruned model, which has to write text. Raises ValueError for an encoder."""
    model = pruned_model(bench, dtype)
    check_writes_text(model, f"model {bench.settings.model.name}")
    return model


def shape_of(bench: Workbench, dtype: str) -> PreTrainedModel | None:
    """Return the dense model without values, for its shapes, if it writes text and nothing has to be loaded for it.

    None where there is no configuration without a download or a conversion, or the model comes with its own code.
    """
    config = bench.settings.model.config(bench.store)
    if config is None or is_encoder_type(config):
        return None
    try:
        return skeleton_of(config, getattr(torch, dtype))
    except Exception as error:
        # Some types look at values while they are built; loading says what is wrong with others.
        log.debug("no shapes of model %s: %s", bench.settings.model.name, error)
        return None


def check_writes_text(model: PreTrainedModel, name: str) -> None:
    """Raise ValueError for a model without a trained output head."""
    if not writes_text(model):
        raise ValueError(
            f"{name} has no output head, so it can neither generate text nor score answers; "
            "evaluate it with task=retrieval, or prune and export it with stages=[prune] export.path=DIR"
        )


def is_encoder(bench: Workbench) -> bool:
    """Return whether the job's model is an encoder."""
    return Decoder(pruned_model(bench, bench.dtype)).structure.encoder


def write_pruned(bench: Workbench, target: Path, describe: Callable[[Path, Written], None]) -> None:
    """Write the pruned model as an ordinary checkpoint: see ``pipeline.prune.checkpoint``."""
    settings, dtype = bench.settings, getattr(torch, bench.dtype)
    expected, decision = probe_outputs(pruned_model(bench, bench.dtype)), decision_of(bench)
    bench.release()

    def prune() -> PreTrainedModel:
        model = settings.model.load(dtype, bench.store)
        as_checkpoint(model, decision)
        return model

    write_checkpoint(prune, bench.tokenizer, target, expected, describe, **settings.model.placement(bench.store))
