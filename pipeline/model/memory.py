"""How much memory a forward pass needs, counted on a model without memory: nothing is computed."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.model.nested import tensors_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

META = "meta"
GIB = 2**30


def in_gib(number: int) -> str:
    """Return a number of bytes in words."""
    return f"{number / GIB:.3g} GiB"


def skeleton_of(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model of a configuration on the device ``meta``: shapes and dtypes, and no values."""
    # Deferred: a command line is checked without loading a model library.
    from transformers import AutoModel, AutoModelForCausalLM

    from pipeline.model.model_types import is_encoder

    source = AutoModel if is_encoder(config) else AutoModelForCausalLM
    with torch.device(META):
        found: PreTrainedModel = source.from_config(config, dtype=dtype)
    return found.eval()


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers; what is tied counts once."""
    kept = {id(each): each for each in (*model.parameters(), *model.buffers())}
    return sum(each.numel() * each.element_size() for each in kept.values())


@torch.inference_mode()
def pass_bytes(model: PreTrainedModel, rows: int, width: int, cached: bool = False, **options: Any) -> int:
    """Return the most bytes that tensors of a forward pass over (rows, width) tokens take at a time.

    Weights are not among them, nor what kernels take for themselves. The pass has a mask of its own for every token,
    as those over prefix trees have. ``options`` are those of the pass.
    """
    with _Counting() as counting:
        ids = torch.zeros(rows, width, dtype=torch.long, device=model.device)
        mask = torch.zeros(rows, 1, width, width, dtype=model.dtype, device=model.device)
        out = model(ids, attention_mask=mask, use_cache=cached, **options)
    del out
    return counting.most


class _Counting(TorchDispatchMode):
    """Counts the bytes of tensors that are made within the block, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {tensor.untyped_storage()._cdata for tensor in tensors_of((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for tensor in tensors_of(out):
            storage = tensor.untyped_storage()
            place = storage._cdata
            if place not in before and place not in self._known:
                self._known.add(place)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._freed, place, storage.nbytes())
        self.most = max(self.most, self._now)
        return out

    def _freed(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._now -= size
