"""Run the decoder one block at a time over the calibration set, each block fed by the (pruned) blocks before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pipeline.decoder import Decoder


@torch.inference_mode()
def block_inputs(decoder: Decoder, batch: torch.Tensor) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """What the blocks are called with: the first block's input (batch, tokens, D), and each block's keywords.

    The decoder runs with its blocks bypassed, so that it prepares masks and positions itself, whatever they are.
    """
    first: list[torch.Tensor] = []
    keywords: list[dict[str, Any]] = []

    def bypass(hidden: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if not first:
            first.append(hidden)
        keywords.append(kwargs)
        return hidden

    try:
        for block in decoder.blocks:
            block.forward = bypass
        decoder.base(batch.to(decoder.device), use_cache=False)
    finally:
        for block in decoder.blocks:
            block.__dict__.pop("forward", None)
    return first[0], keywords


@contextmanager
def linear_inputs(
    linears: dict[str, nn.Linear], on_input: Callable[[tuple[str, ...], torch.Tensor], None]
) -> Iterator[None]:
    """Call ``on_input(names, x)`` with the input of the linear layers during forward passes inside the block.

    Layers that are called with the same tensor one after the other (query, key and value; gate and up) are
    reported once, together, so that a statistic of their input is computed once.
    """
    waiting: list[str] = []
    current: list[torch.Tensor] = []

    def flush() -> None:
        if current:
            on_input(tuple(waiting), current[0])
        waiting.clear()
        current.clear()

    def listen(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if not current or inputs[0] is not current[0]:
                flush()
                current.append(inputs[0])
            waiting.append(name)

        return hook

    handles = [linear.register_forward_pre_hook(listen(name)) for name, linear in linears.items()]
    handles += [list(linears.values())[-1].register_forward_hook(lambda *_: flush())]
    try:
        yield
        flush()
    finally:
        for handle in handles:
            handle.remove()
