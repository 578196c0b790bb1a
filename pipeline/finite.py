"""Weights and scores that are numbers: with NaN or infinite ones something comes out, and none of it means anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn


def check_finite(model: nn.Module, what: str) -> None:
    """Raises ValueError that names ``what`` and the first weight that is not finite, and says how many there are.

    Weights that are on disk (meta tensors of an offloaded model) are passed over.
    """
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta" or not parameter.is_floating_point():
            continue
        if not torch.isfinite(parameter.detach().sum(dtype=torch.float32)):
            # The sum of finite numbers may be infinite itself: count before accusing.
            bad = int((~torch.isfinite(parameter.detach())).sum())
            if bad:
                raise ValueError(
                    f"{what} has {bad} NaN or infinite values in {name}: its results would mean nothing. Load it in "
                    "another dtype (dtype=float32), or get the checkpoint again"
                )


def check_scores(rows: Sequence[Mapping[str, Any]], what: str) -> None:
    """Raises ValueError that names ``what`` and the first layer whose score is not finite: no order would follow."""
    for row in rows:
        if not math.isfinite(row["score"]):
            raise ValueError(
                f"{what} has a score of {row['score']} at layer {row['layer']} ({row['sublayer']}), by which nothing "
                "can be ranked: states overflow. Load it in another dtype (dtype=float32)"
            )
