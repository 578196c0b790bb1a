"""Rows of a cache of keys and values, for passes that go on from it."""

from __future__ import annotations

import copy
from typing import Any

import torch


def rows_of(cache: Any, rows: torch.Tensor) -> Any:
    """Return a cache of the given rows, which may repeat; the original cache stays unchanged for further use."""
    part = copy.copy(cache)
    # Layers replace their tensors when they are selected from or extended, and never write into them.
    part.layers = [copy.copy(layer) for layer in cache.layers]
    part.batch_select_indices(rows)
    return part
