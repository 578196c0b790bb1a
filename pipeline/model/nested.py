"""Tensors within the nested arguments and results of modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def first(value: Any) -> torch.Tensor:
    """Return the tensor of a module's output or arguments: the value itself, or the first of several."""
    return value[0] if isinstance(value, tuple | list) else value


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of nested arguments or results, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors_of(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_of(each)


def floats_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield the floating-point tensors of nested arguments or results, in order."""
    return (x for x in tensors_of(value) if x.is_floating_point())
