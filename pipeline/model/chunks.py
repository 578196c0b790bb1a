"""Models that read a prompt in chunks, each of which passes all blocks before the next one begins (xLSTM).

Everything here counts on one pass of each block, so such a model is made to read a prompt whole. This takes more memory
and computes the same, unless rounding is coarse between chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import nn

from pipeline.model.block_form import Unfit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Longer than any prompt.
ENDLESS = 2**31 - 1
# Relative difference of the outputs that rounding between chunks explains, in any dtype.
_ROUNDING = 0.05


class InChunksError(Exception):
    """A model read its tokens in chunks; ``length`` is the number of tokens of the first."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


def check_order(order: Sequence[int], lengths: Sequence[int], blocks: int, tokens: int) -> None:
    """Raise unless each block ran once, from first to last: InChunksError if each did so on chunks, else Unfit.

    ``order`` are the numbers of blocks as they ran, ``lengths`` the numbers of tokens that each run read, of ``tokens``
    altogether.
    """
    if list(order) == list(range(blocks)):
        return
    chunks = lengths[::blocks]
    in_turn = list(order) == list(range(blocks)) * len(chunks)
    if in_turn and sum(chunks) == tokens and list(lengths) == [length for length in chunks for _ in range(blocks)]:
        raise InChunksError(chunks[0])
    raise Unfit(f"its blocks run in the order {list(order)}, not once each from first to last")


def read_whole(model: PreTrainedModel, blocks: Sequence[nn.Module], length: int, ids: torch.Tensor) -> None:
    """Lengthen the chunks of a model, by the number of its configuration that is their ``length``.

    Raises Unfit if none is, or if it computes something else then.
    """
    config = model.config.get_text_config(decoder=True)
    _, expected = _pass(model, blocks[0], ids)
    for name, value in list(vars(config).items()):
        if type(value) is not int or value != length:
            continue
        setattr(config, name, ENDLESS)
        with suppress(ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            count, found = _pass(model, blocks[0], ids)
            if count == 1 and (found - expected).abs().max() <= _ROUNDING * expected.abs().max():
                return
        setattr(config, name, value)
    raise Unfit(f"it reads a prompt in chunks of {length} tokens, and no field of its configuration makes them longer")


@torch.no_grad()
def _pass(model: PreTrainedModel, block: nn.Module, ids: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Return how often a block runs in one pass over token ids, and the model's output."""
    runs: list[int] = []
    hook = block.register_forward_pre_hook(lambda *_: runs.append(1))
    try:
        output = model(ids, use_cache=False)[0].float()
    finally:
        hook.remove()
    return len(runs), output
