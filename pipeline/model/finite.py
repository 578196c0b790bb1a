"""Checks that numbers are finite: results computed from NaN or infinity would mean nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def is_finite(x: torch.Tensor) -> bool:
    """Return whether a tensor of any shape holds neither NaN nor infinity. Finite tensors take no extra memory."""
    if not x.is_floating_point():
        return True
    total = x.sum(dtype=torch.promote_types(x.dtype, torch.float32))
    # The sum of finite numbers may be infinite itself, so every entry is checked then.
    return bool(torch.isfinite(total)) or bool(torch.isfinite(x).all())


def check_values(x: torch.Tensor, what: str, key: str = "dtype") -> None:
    """Raise ValueError if values of a model are not finite, naming ``what`` they are and the ``key`` to change."""
    if not is_finite(x):
        raise ValueError(
            f"{what} are not finite, so results would be meaningless: the model's states overflow. Load it in another "
            f"dtype ({key}=float32), or get a fresh copy of the checkpoint"
        )


@contextmanager
def checked_logits(model: nn.Module, key: str = "dtype") -> Iterator[None]:
    """Check every forward pass within the block. Raises ValueError in the pass whose last logits are not finite."""

    def check(module: nn.Module, args: Any, output: Any) -> None:
        check_values(output.logits[:, -1], "logits of generated tokens", key)

    hook = model.register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()


def check_finite(model: nn.Module, what: str) -> None:
    """Raise ValueError if weights are not finite, naming ``what``, the first such weight and its number of bad values.

    Weights on disk (meta tensors of an offloaded model) are skipped.
    """
    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        if weight.device.type == "meta" or is_finite(weight):
            continue
        bad = int((~torch.isfinite(weight)).sum())
        raise ValueError(
            f"{what} has {bad} NaN or infinite values in {name}: its results would be meaningless. Load it in "
            "another dtype (dtype=float32), or get a fresh copy of the checkpoint"
        )


def check_scores(rows: Sequence[Mapping[str, Any]], what: str) -> None:
    """Raise ValueError if a score is not finite and cannot be ranked, naming ``what`` and the first such layer."""
    for row in rows:
        if not math.isfinite(row["score"]):
            raise ValueError(
                f"{what} has a score of {row['score']} at layer {row['layer']} ({row['sublayer']}), which cannot be "
                "ranked. Load the model in another dtype (dtype=float32) if its states overflow; if they do not, "
                "importance() itself computes this number: let it return finite ones"
            )
