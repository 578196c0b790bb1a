"""Inputs of a block's weight matrices during forward passes, however the block multiplies with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pipeline.model.decoder import Linear

OnInput = Callable[[tuple[str, ...], torch.Tensor], None]
_TENSOR = torch.Tensor
# Products of two tensors, and those that add a third, which comes first.
_PRODUCTS = {
    *(torch.matmul, torch.mm, torch.bmm, torch.mv),
    *(_TENSOR.matmul, _TENSOR.mm, _TENSOR.bmm, _TENSOR.mv, _TENSOR.__matmul__),
}
_SUMS = {torch.addmm, torch.baddbmm, _TENSOR.addmm, _TENSOR.baddbmm}


class _Watch(TorchFunctionMode):
    """Watches every matrix product, of a linear layer or written out, and knows weights by address.

    Hooks on modules would miss the experts of a mixture, whose weights are slices of one parameter. Matrices that are
    multiplied with the same tensor one after the other (query, key and value; gate and up) are reported together.
    """

    def __init__(self, linears: Sequence[Linear], on_input: OnInput, skip: Collection[str]) -> None:
        super().__init__()
        self._names = {_address(linear.weight): linear.name for linear in linears}
        self._storages = {linear.weight.untyped_storage().data_ptr() for linear in linears}
        self._on_input, self._skip = on_input, skip
        self._waiting: list[str] = []
        self._input: torch.Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch._C._nn.linear:
            names = self._named(args[1])
            zeros = self._seen(names, args[0], args[1]) if names else None
            return func(*args, **kwargs) if zeros is None else zeros
        operands: tuple[Any, ...] = args[:2] if func in _PRODUCTS else args[1:3] if func in _SUMS else ()
        if len(operands) == 2:
            one, other = operands
            if other.ndim > 1 and (names := self._named(weight := other.mT)):
                zeros = self._seen(names, one, weight)
                return func(*args, **kwargs) if zeros is None else zeros
            if one.ndim > 1 and (names := self._named(one)):
                # The weight is on the left, so that its input is the other's columns.
                zeros = self._seen(names, other.mT if other.ndim > 1 else other, one)
                return func(*args, **kwargs) if zeros is None else zeros.mT if other.ndim > 1 else zeros
        return func(*args, **kwargs)

    def _named(self, weight: torch.Tensor) -> list[str | None]:
        """Return the names of a weight (out, in), or of several side by side, (n, ..., out, in); empty if none has."""
        if weight.untyped_storage().data_ptr() not in self._storages:
            return []
        found = [self._names.get(_address(each)) for each in _each(weight)]
        return found if any(found) else []

    def _seen(self, names: Sequence[str | None], x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
        """Report the input (..., in) of a weight; return zeros for the product if it is to be skipped, else None."""
        for at, name in enumerate(names):
            if name is not None:
                self._note(name, x[at] if x.ndim == weight.ndim > 2 else x)
        if not all(name in self._skip for name in names):
            return None
        batch = torch.broadcast_shapes(x.shape[:-2], weight.shape[:-2])
        return x.new_zeros((*batch, *x.shape[-2:-1], weight.shape[-2]))

    def _note(self, name: str, x: torch.Tensor) -> None:
        if self._input is None or _address(x) != _address(self._input):
            self.flush()
            self._input = x
        self._waiting.append(name)

    def flush(self) -> None:
        if self._input is not None:
            self._on_input(tuple(self._waiting), self._input.reshape(-1, self._input.shape[-1]))
        self._waiting, self._input = [], None


def _each(weight: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return a weight, or each of several."""
    if weight.ndim < 3:
        return [weight]
    return weight.flatten(0, -3).unbind() if weight.shape[0] == weight.shape[:-2].numel() else ()


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
