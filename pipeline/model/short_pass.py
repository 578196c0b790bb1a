"""A pass of few tokens, which shows what a model does: the tokens, the mode of the model, the stream of a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.model.nested import tensors_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Number of tokens of the pass: few, and unlike the size of anything else, so that attention shows by its shape.
TOKENS = 13


def tokens(model: PreTrainedModel, others: int = 0, length: int = TOKENS) -> torch.Tensor:
    """Return the token ids (1 + others, length) of a pass; the other rows begin with another token."""
    size = model.get_input_embeddings().weight.shape[0]
    rows = torch.arange(3, 3 + length).remainder(size).repeat(1 + others, 1)
    rows[1:, 0] += 1
    return rows


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Let a model compute without dropout within the block; each of its modules is then in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def stream_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the residual stream among the arguments of a block: the first that is a floating-point tensor."""
    named = kwargs.get("hidden_states")
    if isinstance(named, torch.Tensor):
        return named
    return next(x for x in tensors_of((args, dict(kwargs))) if x.is_floating_point())
