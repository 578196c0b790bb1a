"""States that a sublayer is given and returns beside its update, as recurrent models pass them on (xLSTM, RWKV)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.model.structure import BlockStructure, Part, Stub

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The place of a value among those that a module returns, and the place or name of the argument that it comes from.
Handed = tuple[tuple[int, int | str], ...]


def with_handed_on(
    model: PreTrainedModel, ids: torch.Tensor, blocks: Sequence[nn.Module], found: Sequence[BlockStructure]
) -> tuple[BlockStructure, ...]:
    """Return the structures of blocks with what their modules hand on, as one pass with a cache shows.

    Only blocks that return something beside the stream are looked at: others keep their state elsewhere.
    """
    seen: dict[tuple[int, str], Handed] = {}
    with ExitStack() as stack:
        for at, block in enumerate(found):
            for part in block.parts if block.several > 1 else ():
                for path, stub in zip(part.modules, part.stubs, strict=True):
                    if stub.several > 1:
                        hook = _noting(seen, (at, path))
                        module = blocks[at].get_submodule(path)
                        stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
                        seen[at, path] = ()
        if seen:
            # Without a cache there is no state to hand on.
            with suppress(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
                model(ids, use_cache=True)

    def stub_of(at: int, path: str, stub: Stub) -> Stub:
        return replace(stub, handed=seen.get((at, path), ()))

    def part_of(at: int, part: Part) -> Part:
        pairs = zip(part.modules, part.stubs, strict=True)
        return replace(part, stubs=tuple(stub_of(at, path, stub) for path, stub in pairs))

    return tuple(
        replace(block, parts=tuple(part_of(at, part) for part in block.parts)) for at, block in enumerate(found)
    )


def _noting(seen: dict[tuple[int, str], Handed], place: tuple[int, str]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        found = []
        for number, value in enumerate(output):
            source = next((name for name, argument in given if number and _is_state(value, argument)), None)
            if source is not None:
                found.append((number, source))
        seen[place] = tuple(found)

    return hook


def _is_state(value: Any, argument: Any) -> bool:
    """Return whether a returned value is an argument, or a new state in its place: several tensors of its shapes."""
    if value is None or argument is None:
        return False
    several = isinstance(value, tuple | list) and type(value) is type(argument) and len(value) > 0
    return value is argument or (several and _shapes(value) == _shapes(argument))


def _shapes(values: Sequence[Any]) -> list[Any]:
    return [value.shape if isinstance(value, torch.Tensor) else value for value in values]
