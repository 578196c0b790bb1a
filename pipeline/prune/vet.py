"""The check that a model in memory computes numbers that mean something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipeline.model.finite import check_finite
from pipeline.prune.checkpoint import probe_outputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def vet(model: PreTrainedModel, what: str) -> None:
    """Refuse a model, called ``what``, with weights that are not finite, or in float16 with outputs that are not.

    float16 is tried on a short text: an overflow should show before hours of work. Raises ValueError.
    """
    check_finite(model, what)
    if model.dtype == torch.float16:
        probe_outputs(model)
