"""PyTorch's operators by what they do to a tensor that is followed: hand it on, add, scale or multiply it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

aten = torch.ops.aten
# Operators that hand on the numbers of their first tensor in another shape, dtype or place.
SAME = {
    *(aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias, aten.unsqueeze, aten.squeeze, aten.expand),
    *(aten.clone, aten.alias, aten._to_copy, aten.detach, aten.contiguous, aten.lift_fresh),
}
SUMS = {aten.add: 1, aten.add_: 1, aten.sub: -1, aten.sub_: -1}
FACTORS = {aten.mul: 1, aten.mul_: 1, aten.div: -1, aten.div_: -1}
PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.convolution, aten.linear, aten._grouped_mm, aten.mv}
ZEROS = {aten.zeros, aten.zeros_like, aten.new_zeros, aten.zero_, aten.empty, aten.empty_like, aten.new_empty}
# Operators whose result is zero where all of their tensors are.
KEEP_ZERO = {
    *SAME,
    *(aten.neg, aten.silu, aten.gelu, aten.relu, aten.tanh, aten.leaky_relu, aten.erf, aten.sin, aten.abs, aten.pow),
    *(aten.square, aten.sqrt, aten.sum, aten.mean, aten.cumsum, aten.transpose, aten.permute, aten.t, aten.slice),
    *(aten.select, aten.index, aten.index_select, aten.gather, aten.split, aten.split_with_sizes, aten.unbind),
    *(aten.cat, aten.stack, aten.where, aten.constant_pad_nd, aten.roll, aten.copy_, aten.unfold, aten.view_as_real),
    *(aten.index_add, aten.index_add_, aten.index_put, aten.index_put_, aten.scatter, aten.scatter_),
    *(aten.scatter_add, aten.scatter_add_, aten.masked_fill, aten.masked_fill_, aten.index_copy_, aten.index_copy),
}


def is_attention(operator: Any, result: torch.Tensor, lengths: Collection[int]) -> bool:
    """Return whether an operator weights tokens by one another: a softmax over T tokens, perhaps beside a sink.

    ``lengths`` are the values that T may have.
    """
    name = operator.__name__
    if "scaled_dot_product" in name:
        return True
    if "softmax" not in name or result.ndim < 3:
        return False
    rows, columns = result.shape[-2:]
    return rows in lengths and rows <= columns <= rows + 1
