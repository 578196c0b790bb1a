"""One short pass with the stream followed through every block, between the blocks and behind the last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from pipeline.model.block_form import Unfit
from pipeline.model.chunks import check_order
from pipeline.model.dataflow import STREAM, Fact, Flow, Follower
from pipeline.model.nested import tensors_of
from pipeline.model.short_pass import TOKENS, stream_of, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Seen:
    """What one pass showed: the flow in every block, what its output was multiplied by on the way to the next one, and
    the flow behind the last one; the last state, and what came out.
    """

    blocks: tuple[Flow, ...]
    passed: tuple[float, ...]
    tail: Flow
    last: torch.Tensor
    out: torch.Tensor


class _Sections:
    """Follows one section of a pass at a time: a block, the way to the next one, or what is behind the last."""

    def __enter__(self) -> Self:
        self._running = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        # Also where the pass broke off within a section.
        self._running.close()

    def begin(self, follower: Follower, stream: torch.Tensor) -> None:
        """End the section before, and begin one with its stream (B, T, D)."""
        self._running.close()
        self._running.enter_context(follower)
        self.current = follower
        follower.begin(stream, TOKENS)


def watch(
    model: PreTrainedModel, blocks: Sequence[nn.Module], lists: Sequence[str], renewing: Sequence[frozenset[str]] = ()
) -> Seen:
    """Run the model on a few tokens, and follow the stream through each block of ``lists``, between and behind them."""
    order: list[int] = []
    lengths: list[int] = []
    passed: list[Fact] = []
    followers = [
        Follower(
            {module: path for path, module in block.named_modules() if path},
            dict(block.named_parameters()),
            renewing[at] if renewing else (),
        )
        for at, block in enumerate(blocks)
    ]
    inner = tuple(f"{name}." for name in lists)
    outside = {m: path for path, m in model.named_modules() if path and not inner[0].startswith(f"{path}.")}
    outside = {m: path for m, path in outside.items() if not f"{path}.".startswith(inner)}
    outer = {path: value for path, value in model.named_parameters() if not path.startswith(inner)}
    tail = Follower(outside, outer, rows=True)
    last: list[torch.Tensor] = []

    with ExitStack() as stack, _Sections() as sections:

        def enter(at: int, block: nn.Module, args: Any, kwargs: Any) -> None:
            order.append(at)
            stream = stream_of(args, kwargs)
            lengths.append(stream.shape[1])
            if order[1:]:
                # Some models multiply by a mask in between, which is one here.
                same = last[0].shape == stream.shape and torch.equal(last[0], stream)
                passed.append(Fact({STREAM: 1.0}) if same else sections.current.fact(stream))
            sections.begin(followers[at], stream)

        def leave(at: int, block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            result = next(iter(tensors_of(output)))
            followers[at].flow.result = followers[at].fact(result)
            followers[at].flow.several = len(output) if isinstance(output, tuple | list) else 0
            sections.begin(tail if at == len(blocks) - 1 else Follower({}, {}), result)
            last[:] = [result.clone()]

        for at, block in enumerate(blocks):
            hook = followers[at]
            for module in block.modules():
                if module is not block:
                    stack.callback(module.register_forward_pre_hook(hook.entered, with_kwargs=True).remove)
                    stack.callback(module.register_forward_hook(hook.left, with_kwargs=True).remove)
            stack.callback(block.register_forward_pre_hook(_bound(enter, at), with_kwargs=True, prepend=True).remove)
            stack.callback(block.register_forward_hook(_bound(leave, at), with_kwargs=True).remove)
        for module in outside:
            stack.callback(module.register_forward_pre_hook(tail.entered, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(tail.left, with_kwargs=True).remove)
        out = model(tokens(model), use_cache=False)
        tail.flow.result = tail.fact(out[0])
    check_order(order, lengths, len(blocks), TOKENS)
    return Seen(tuple(follower.flow for follower in followers), _factors(passed), tail.flow, last[0], out[0])


def _factors(passed: Sequence[Fact]) -> tuple[float, ...]:
    """Return what each block's output is multiplied by before the next block. Raises Unfit if more is done to it."""
    found = []
    for at, fact in enumerate(passed):
        if fact.sum is None or set(fact.sum) != {STREAM}:
            raise Unfit(f"block {at + 1} is not given what block {at} returns")
        found.append(fact.sum[STREAM])
    return tuple(found)


def _bound(call: Callable[..., None], at: int) -> Callable[..., None]:
    return lambda *given: call(at, *given)
