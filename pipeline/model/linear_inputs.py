"""Inputs of a block's weight matrices during forward passes, however the block multiplies with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pipeline.model.decoder import Linear

OnInput = Callable[[tuple[str, ...], torch.Tensor], None]


class _Watch(TorchFunctionMode):
    """Watches every matrix product of a linear layer (``linear``; ``addmm`` for Conv1D); knows weights by address.

    Hooks on modules would miss the experts of a mixture, whose weights are slices of one parameter. Matrices that are
    multiplied with the same tensor one after the other (query, key and value; gate and up) are reported together.
    """

    def __init__(self, linears: Sequence[Linear], on_input: OnInput, skip: Collection[str]) -> None:
        super().__init__()
        self._names = {_address(linear.weight): linear.name for linear in linears}
        self._on_input, self._skip = on_input, skip
        self._waiting: list[str] = []
        self._input: torch.Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._nn.linear:
            x, weight = args[0], args[1]
        elif func is torch.addmm:
            x, weight = args[1], args[2].T
        else:
            return func(*args, **(kwargs or {}))
        name = self._names.get(_address(weight))
        if name is not None:
            self._note(name, x)
            if name in self._skip:
                return x.new_zeros((*x.shape[:-1], weight.shape[0]))
        return func(*args, **(kwargs or {}))

    def _note(self, name: str, x: torch.Tensor) -> None:
        if self._input is None or _address(x) != _address(self._input):
            self.flush()
            self._input = x
        self._waiting.append(name)

    def flush(self) -> None:
        if self._input is not None:
            self._on_input(tuple(self._waiting), self._input.reshape(-1, self._input.shape[-1]))
        self._waiting, self._input = [], None


def _address(x: torch.Tensor) -> tuple[int, torch.Size]:
    return x.data_ptr(), x.shape


@contextmanager
def linear_inputs(linears: Sequence[Linear], on_input: OnInput, skip: Collection[str] = ()) -> Iterator[None]:
    """Call ``on_input(names, x)``, x of shape (tokens, in), for every product with these matrices within the block.

    Matrices named in ``skip`` are not multiplied and give zeros, for passes that only gather inputs.
    """
    watch = _Watch(linears, on_input, skip)
    with watch:
        yield
    watch.flush()
