"""What a pruner reads besides the model: calibration text, and the dense model's states on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from pipeline.data.calibration.base import CalibrationSet, batches
from pipeline.model.continuations import read
from pipeline.model.trajectory import Trajectory
from pipeline.prune.base import Context, Pruner

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
# Calibration text: int64 (sequences, tokens) batches of equal length each.
Text = Callable[[], list[torch.Tensor]]


def states_on(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: CalibrationSet, text: Text
) -> Trajectory:
    """Compute the dense model's final states on the calibration text, which it may write itself.

    ``text`` gives that of a set that is not generated.
    """
    if source.generated:
        return source.continued(model, tokenizer)
    return read(model, [row for batch in text() for row in batch.tolist()])


def own_text(states: Trajectory, size: int) -> list[torch.Tensor]:
    """Return prompts with the model's own continuations as calibration text, at most ``size`` sequences a batch."""
    rows = [torch.tensor([*prompt, *tokens]) for prompt, tokens in zip(states.prompts, states.tokens, strict=True)]
    return batches(rows, size)


def context_of(pruner: Pruner, source: CalibrationSet, text: Text, states: Callable[[], Trajectory]) -> Context:
    """Return what a pruner may read, of which only that is computed which it reads."""
    if not pruner.calibrated:
        return Context()
    if pruner.own_text and not source.generated:
        log.warning(
            "%s chooses by predictions of the given text; generation loss shows on text that the model wrote itself: "
            "calibration=trajectories",
            pruner.name,
        )
    return Context(text(), states()) if pruner.compares else Context(text())
