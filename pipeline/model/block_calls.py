"""The arguments that a model passes to its blocks, for running blocks one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.model.activations import Activations
from pipeline.model.decoder import Decoder
from pipeline.model.dropped import passed_on

if TYPE_CHECKING:
    import torch

Call = tuple[tuple[Any, ...], dict[str, Any]]


def block_calls(decoder: Decoder, batches: Sequence[torch.Tensor], inputs: Activations) -> list[list[Call]]:
    """Return the arguments of every block beside its input, per batch; write the first block's inputs to ``inputs``.

    The model runs with its blocks bypassed and prepares masks and positions itself, whatever they are. Without padding
    these depend only on the shape of a batch, so batches of one shape share them.
    """
    by_shape: dict[torch.Size, list[Call]] = {}
    calls: list[Call] = []
    entered: list[torch.Tensor] = []

    def bypass(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        several = decoder.structure.blocks[len(calls)].several
        entered.append(hidden_states)
        calls.append((args, kwargs))
        return passed_on(hidden_states, several)

    original = [block.__dict__.get("forward") for block in decoder.blocks]
    try:
        for block in decoder.blocks:
            block.forward = bypass
        for index, batch in enumerate(batches):
            entered.clear()
            calls.clear()
            decoder.base(batch.to(decoder.device), use_cache=False)
            inputs[index] = entered[0].cpu()
            by_shape.setdefault(batch.shape, list(calls))
    finally:
        for block, forward in zip(decoder.blocks, original, strict=True):
            block.__dict__.pop("forward") if forward is None else setattr(block, "forward", forward)
    return [by_shape[batch.shape] for batch in batches]
