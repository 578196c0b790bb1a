"""The residual stream, read by hooks: its states around every sublayer, and around every block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.model.decoder import Decoder

OnState = Callable[[int, torch.Tensor], None]


@dataclass(frozen=True)
class Layout:
    """Indices of the states around sublayer i (attention of block 0, MLP of block 0, attention of block 1, ...).

    State ``before[i]`` is the stream x that the sublayer reads, ``after[i]`` is x + f(x). In chained blocks one
    sublayer's after is the next one's before, so 2L sublayers have 2L + 1 distinct states.
    """

    states: int
    before: tuple[int, ...]
    after: tuple[int, ...]


def layout(decoder: Decoder) -> Layout:
    """Return the distinct states of a model, numbered in the order in which they arise."""
    blocks = range(len(decoder.blocks))
    if decoder.architecture.chained:
        count = 2 * len(blocks)
        return Layout(count + 1, tuple(range(count)), tuple(range(1, count + 1)))
    if decoder.architecture.parallel:
        before, after = [(3 * at, 3 * at) for at in blocks], [(3 * at + 1, 3 * at + 2) for at in blocks]
        return Layout(3 * len(blocks), sum(before, ()), sum(after, ()))
    sublayers = range(2 * len(blocks))
    return Layout(4 * len(blocks), tuple(2 * i for i in sublayers), tuple(2 * i + 1 for i in sublayers))


def first(value: Any) -> torch.Tensor:
    """Return the tensor of a module's output or arguments: the value itself, or the first of several."""
    return value[0] if isinstance(value, tuple | list) else value


def stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """Return the residual stream among the arguments of a block or an attention module."""
    return args[0] if args else kwargs["hidden_states"]


@contextmanager
def tap(decoder: Decoder, on_state: OnState) -> Iterator[None]:
    """Call ``on_state(index, x)`` for every state of ``layout`` in each forward pass within the block.

    ``x`` has shape (batch, tokens, D) in the model's dtype. The hooks are removed on leaving, also after an error.
    """
    plan, chained = layout(decoder), decoder.architecture.chained
    seen: dict[int, torch.Tensor] = {}
    shape: list[torch.Size] = []

    def entered(state: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if state not in seen:
                x = stream(args, kwargs)
                if x.ndim == 3:
                    shape[:] = [x.shape]
                seen.clear()
                # Some blocks (OPT) flatten batch and tokens for their MLP.
                seen[state] = x.view(shape[0])
                on_state(state, seen[state])

        return hook

    def left(before: int, after: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: Any) -> None:
            on_state(after, seen[before] + first(output))

        return hook

    with ExitStack() as stack:
        for sublayer, before, after in zip(decoder.sublayers(), plan.before, plan.after, strict=True):
            hook = sublayer.entry.register_forward_pre_hook(entered(before), with_kwargs=True)
            stack.callback(hook.remove)
            if not chained:
                stack.callback(sublayer.exit.register_forward_hook(left(before, after)).remove)
        if chained:
            assert decoder.final_norm is not None
            hook = decoder.final_norm.register_forward_pre_hook(entered(plan.states - 1), with_kwargs=True)
            stack.callback(hook.remove)
        start = decoder.base.register_forward_pre_hook(lambda *_: seen.clear())
        stack.callback(start.remove)
        yield


@contextmanager
def tap_blocks(decoder: Decoder, on_state: OnState) -> Iterator[None]:
    """Call ``on_state(index, x)`` for the input of every block (0 to L - 1) and the output of the last one (L)."""
    last = len(decoder.blocks)

    def entered(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            on_state(index, stream(args, kwargs))

        return hook

    with ExitStack() as stack:
        for index, block in enumerate(decoder.blocks):
            stack.callback(block.register_forward_pre_hook(entered(index), with_kwargs=True).remove)
        end = decoder.blocks[-1].register_forward_hook(lambda m, a, output: on_state(last, first(output)))
        stack.callback(end.remove)
        yield
