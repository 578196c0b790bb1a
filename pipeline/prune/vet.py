"""The check that a model in memory computes numbers that mean something."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from pipeline.model.finite import check_finite
from pipeline.prune.checkpoint import probe_outputs


def vet(model: PreTrainedModel, what: str) -> None:
    """Refuse a model, called ``what``, with weights that are not finite, or in float16 with outputs that are not.

    float16 is tried on a short text: an overflow should show before hours of work. Raises ValueError.
    """
    check_finite(model, what)
    if model.dtype == torch.float16:
        probe_outputs(model)
