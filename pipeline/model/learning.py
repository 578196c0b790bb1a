"""Which weights of a model take part in a backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.model.offload import is_offloaded

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def only_learning(model: nn.Module, learning: Sequence[nn.Parameter] = ()) -> Iterator[None]:
    """Let nothing but these weights of a model require gradients within the block; afterwards those do that did."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    chosen = set(map(id, learning))
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in chosen)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


def check_in_memory(model: nn.Module, pruner: str, instead: str) -> None:
    """Raise ValueError, naming a pruner to give instead, if weights are away: a backward pass needs all of them."""
    if is_offloaded(model):
        raise ValueError(
            f"pruner={pruner} runs a backward pass, which needs all weights in memory; give pruner={instead}, or allow "
            "more memory in model.max_memory"
        )
