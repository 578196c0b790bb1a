"""Gates of one on what sublayers add to the residual stream: derivatives by them say what dropping a sublayer costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from pipeline.model.decoder import Decoder
from pipeline.model.nested import first


@contextmanager
def gated(decoder: Decoder, sequences: int) -> Iterator[list[torch.Tensor]]:
    """Multiply the update of each sublayer by a gate (sequences, 1, 1) of one, within the block.

    Gates come in the order of ``decoder.sublayers()`` and require gradients. Passes have ``sequences`` rows.
    """
    gates, weight = [], next(decoder.model.parameters())
    with ExitStack() as stack:
        for sublayer in decoder.sublayers():
            gate = torch.ones(sequences, 1, 1, device=weight.device, requires_grad=True)
            for module, write in zip(sublayer.exits, sublayer.part.writes, strict=True):
                stack.callback(module.register_forward_hook(_times(gate, write.beside)).remove)
            gates.append(gate)
        yield gates


def _times(gate: torch.Tensor, beside: int) -> Callable[..., Any]:
    """Return a hook that multiplies the update in a module's output, and the one ``beside`` it, by a gate."""

    def hook(module: nn.Module, args: object, output: Any) -> Any:
        update = first(output)
        # Some blocks (OPT) flatten batch and tokens for their MLP.
        scaled = (update.view(len(gate), -1, update.shape[-1]) * gate.to(update)).view_as(update)
        if not isinstance(output, tuple):
            return scaled
        rest = [x * gate.to(x) if beside and at == beside else x for at, x in enumerate(output)][1:]
        return (scaled, *rest)

    return hook
