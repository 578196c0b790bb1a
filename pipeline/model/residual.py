"""The residual stream, read by hooks: its states around every sublayer, and around every block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.model.decoder import Decoder
from pipeline.model.nested import first
from pipeline.model.short_pass import stream_of

OnState = Callable[[int, torch.Tensor], None]


@dataclass(frozen=True)
class Layout:
    """Indices of the states around sublayer i, in the order of `Decoder.sublayers`.

    State ``before[i]`` is the stream x that the sublayer reads, ``after[i]`` is x + f(x). In chained blocks one
    sublayer's after is the next one's before, so S sublayers have S + 1 distinct states. Where a norm is on a sum
    a·x + f(x), ``before`` is a·x.
    """

    states: int
    before: tuple[int, ...]
    after: tuple[int, ...]


def layout(decoder: Decoder) -> Layout:
    """Return the distinct states of a model, numbered in the order in which they arise."""
    if decoder.structure.chained:
        count = len(decoder.sublayers())
        return Layout(count + 1, tuple(range(count)), tuple(range(1, count + 1)))
    states = 0
    before: list[int] = []
    after: list[int] = []
    for block in decoder.structure.blocks:
        for number, _ in enumerate(block.parts):
            if block.parallel and number:
                before.append(before[-1])
            else:
                before.append(states)
                states += 1
            after.append(states)
            states += 1
    return Layout(states, tuple(before), tuple(after))


@contextmanager
def tap(decoder: Decoder, on_state: OnState) -> Iterator[None]:
    """Call ``on_state(index, x)`` for every state of ``layout`` in each forward pass within the block.

    ``x`` has shape (batch, tokens, D) in the model's dtype. The hooks are removed on leaving, also after an error.
    """
    plan, chained = layout(decoder), decoder.structure.chained
    # The states before the sublayers of one block: sublayers may write by turns.
    seen: dict[int, torch.Tensor] = {}
    shape: list[torch.Size] = []

    def entered(state: int, carry: float, opens: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if state not in seen:
                x = stream_of(args, kwargs)
                if x.ndim == 3:
                    shape[:] = [x.shape]
                if opens:
                    seen.clear()
                # Some blocks (OPT) flatten batch and tokens for their MLP.
                x = x.view(shape[0])
                seen[state] = x if carry == 1 else carry * x
                on_state(state, decoder.by_token(seen[state]))

        return hook

    def left(before: int, after: int) -> Callable[[torch.Tensor], None]:
        return lambda update: on_state(after, decoder.by_token(seen[before] + update.view_as(seen[before])))

    def last(block: nn.Module, args: object, output: Any) -> None:
        seen.clear()
        on_state(plan.states - 1, decoder.by_token(first(output)))

    with ExitStack() as stack:
        block = None
        for sublayer, before, after in zip(decoder.sublayers(), plan.before, plan.after, strict=True):
            opens, block = sublayer.layer != block, sublayer.layer
            hook = sublayer.entry.register_forward_pre_hook(
                entered(before, sublayer.part.carry, opens), with_kwargs=True
            )
            stack.callback(hook.remove)
            if not chained:
                stack.enter_context(sublayer.watched(left(before, after)))
        if chained:
            stack.callback(decoder.blocks[-1].register_forward_hook(last).remove)
        start = decoder.holder.register_forward_pre_hook(lambda *_: seen.clear())
        stack.callback(start.remove)
        stack.enter_context(_whole(decoder))
        yield


@contextmanager
def tap_blocks(decoder: Decoder, on_state: OnState) -> Iterator[None]:
    """Call ``on_state(index, x)`` for the input of every block (0 to L - 1) and the output of the last one (L)."""
    last = len(decoder.blocks)

    def entered(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            on_state(index, decoder.by_token(stream_of(args, kwargs)))

        return hook

    with ExitStack() as stack:
        stack.enter_context(_whole(decoder))
        for index, block in enumerate(decoder.blocks):
            stack.callback(block.register_forward_pre_hook(entered(index), with_kwargs=True).remove)
        end = decoder.blocks[-1].register_forward_hook(
            lambda m, a, output: on_state(last, decoder.by_token(first(output)))
        )
        stack.callback(end.remove)
        yield


@contextmanager
def _whole(decoder: Decoder) -> Iterator[None]:
    """Raise ValueError, within the block, for a pass that reads its tokens in chunks: states would be of the last."""
    runs: list[int] = []

    def count(*_: object) -> None:
        runs.append(1)
        if len(runs) > 1:
            raise ValueError(f"a {decoder.model.config.model_type} model reads a text this long in chunks; shorten it")

    with ExitStack() as stack:
        stack.callback(decoder.holder.register_forward_pre_hook(lambda *_: runs.clear()).remove)
        stack.callback(decoder.blocks[0].register_forward_pre_hook(count).remove)
        yield
