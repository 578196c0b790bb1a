"""Parameters that hold matrices in another shape than their own: all experts stacked in one, or heads apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def form_of(whole: torch.Tensor, used: torch.Tensor) -> tuple[int, ...]:
    """Return the shape in which a parameter holds its matrices, from a view of it that was multiplied with.

    That is (n, rows, columns) for n matrices of equal size stacked in a matrix (DBRX's experts), and (rows, columns)
    for a matrix of which one side has several dimensions (XLNet's heads). In any other case it is the parameter's own.
    """
    own = tuple(whole.shape)
    rows, columns = used.shape[-2:]
    strides = used.stride()[-2:]
    if strides[0] < strides[1]:
        rows, columns, strides = columns, rows, (strides[1], strides[0])
    size = rows * columns
    if (rows, columns) == own[-2:] or strides != (columns, 1) or not whole.is_contiguous() or whole.numel() % size:
        return own
    if whole.ndim > 2:
        return (rows, columns) if size == whole.numel() else own
    # Weights that are not in memory are brought in as tensors of their own.
    start = used.untyped_storage().data_ptr() if whole.is_meta else whole.data_ptr()
    stacked = columns == own[1] and (used.data_ptr() - start) % (size * used.element_size()) == 0
    return (whole.numel() // size, rows, columns) if stacked else own
