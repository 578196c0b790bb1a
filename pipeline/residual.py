"""The residual stream, read by hooks: its state before every sublayer and after the last block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.hooks import RemovableHandle

from pipeline.decoder import Decoder


@contextmanager
def tap(decoder: Decoder, on_state: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """Call ``on_state(index, x)`` for every residual state of each forward pass inside the block.

    With L blocks there are 2L + 1 states, in order: ``2l`` before the attention sublayer of block l, ``2l + 1``
    before its MLP sublayer, and ``2L`` after the last block, before the final norm. ``x`` has shape
    (batch, tokens, D) in the model's dtype. The hooks are removed on leaving, also after an error.
    """
    handles: list[RemovableHandle] = []

    def listen(index: int) -> Callable[..., None]:
        def hook(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
            on_state(index, inputs[0])

        return hook

    try:
        for index, sublayer in enumerate(decoder.sublayers()):
            handles.append(sublayer.norm.register_forward_pre_hook(listen(index)))
        handles.append(decoder.final_norm.register_forward_pre_hook(listen(2 * len(decoder.blocks))))
        yield
    finally:
        for handle in handles:
            handle.remove()
