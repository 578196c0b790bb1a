"""Weights that no test can pass by chance: nothing is zero, one or the same twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SCALE, _SHIFT = 0.5, 0.3


def randomize(model: PreTrainedModel, seed: int) -> None:
    """Draw all parameters, and the buffers that a checkpoint stores, in place.

    Matrices keep the size of what they are given: normal with deviation 1 / sqrt(inputs). Embeddings are normal with
    deviation 1. Vectors move away from their neutral initial value.
    """
    generator = torch.Generator().manual_seed(seed)
    stored = model.state_dict().keys()
    done: set[int] = set()
    for place, module in model.named_modules():
        buffers = [(name, buffer) for name, buffer in module.named_buffers(recurse=False) if _neutral(buffer)]
        for name, tensor in [*module.named_parameters(recurse=False), *buffers]:
            path = f"{place}.{name}" if place else name
            if path in stored and tensor.is_floating_point() and tensor.data_ptr() not in done and _acts(path):
                done.add(tensor.data_ptr())
                with torch.no_grad():
                    tensor.copy_(_drawn(module, tensor, generator))


def _neutral(buffer: torch.Tensor) -> bool:
    """Whether a buffer may be learned, as a router's corrections are: a vector of zeros and ones for the most part."""
    return _vector(buffer) and bool(((buffer == 0) | (buffer == 1)).float().mean() > 0.5)


def _vector(tensor: torch.Tensor) -> bool:
    return sum(size > 1 for size in tensor.shape) <= 1


def _acts(path: str) -> bool:
    return "inv_freq" not in path and "rotary" not in path


def _drawn(module: nn.Module, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(tensor.shape, generator=generator)
    if isinstance(module, nn.Embedding):
        return normal
    if not _vector(tensor):
        return normal / math.sqrt(_inputs(module, tensor))
    initial = torch.nan_to_num(tensor.detach().float().cpu(), 0.0, 0.0, 0.0).clamp(-8.0, 8.0)
    if tensor.numel() > 0 and torch.all(initial == 1):
        return 0.5 + torch.rand(tensor.shape, generator=generator)
    return initial + _SHIFT * normal


def _inputs(module: nn.Module, tensor: torch.Tensor) -> float:
    if isinstance(module, nn.Linear) or type(module).__name__.endswith("Linear"):
        return tensor.shape[-1]
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return tensor[0].numel()
    # Stacked experts and GPT-2's transposed layers: which axis counts the inputs is not known.
    return (tensor.shape[-1] + tensor.shape[-2]) / 2
