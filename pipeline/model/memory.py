"""How much memory a forward pass needs, counted on a model without memory: nothing is computed."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Need:
    """Bytes that work takes at a time beside the weights.

    ``passes`` are on the device of the model, ``kept`` are states in the processor's memory.
    """

    passes: int
    kept: int = 0


@torch.inference_mode()
def pass_bytes(
    model: PreTrainedModel, rows: int, width: int, cached: bool = False, masked: bool = True, **options: Any
) -> int:
    """Return the most bytes that tensors of a forward pass over (rows, width) tokens take at a time.

    Weights are not among them, nor what kernels take for themselves. With ``masked``, the pass has a mask of its own
    for every token, as those over prefix trees have. ``options`` are those of the pass.
    """
    with _Counting() as counting:
        mask = _mask(model, rows, width) if masked else _no_mask(model)
        out = model(_ids(model, rows, width), attention_mask=mask, use_cache=cached, **options)
    del out
    return counting.most


@torch.inference_mode()
def states_bytes(model: PreTrainedModel, rows: int, width: int) -> int:
    """Return the same of a pass that ends at the final states, without a mask and a cache."""
    with _Counting() as counting:
        out = model.base_model(_ids(model, rows, width), attention_mask=_no_mask(model), use_cache=False)
    del out
    return counting.most


@torch.inference_mode()
def writing_bytes(model: PreTrainedModel, rows: int, width: int, steps: int) -> int:
    """Return the most bytes that tensors take while ``rows`` texts of ``width`` tokens are continued by ``steps``.

    That is in the pass over the texts, or in the pass of the last token with the cache of all before. Without a cache,
    the whole text passes for every token.
    """
    if not getattr(model.config, "use_cache", False):
        return pass_bytes(model, rows, width + steps - 1, logits_to_keep=1)
    first = pass_bytes(model, rows, width, cached=True, logits_to_keep=1)
    held = width + max(steps - 2, 0)
    with _Counting() as counting:
        mask = _mask(model, rows, held)
        cache = model(_ids(model, rows, held), attention_mask=mask, use_cache=True, logits_to_keep=1).past_key_values
        del mask
        counting.restart()
        mask = _mask(model, rows, 1, held)
        out = model(_ids(model, rows, 1), attention_mask=mask, past_key_values=cache, use_cache=True)
        chosen = out.logits[:, -1].to(torch.float32, copy=True)
    del cache, out, chosen
    return max(first, counting.most)


def _mask(model: PreTrainedModel, rows: int, width: int, held: int = 0) -> torch.Tensor:
    """Return a mask of every token after ``held`` ones."""
    return torch.zeros(rows, 1, width, held + width, dtype=model.dtype, device=model.device)


def _no_mask(model: PreTrainedModel) -> torch.Tensor:
    """Return a mask of one value: without any, the library would look at values, and there are none."""
    return torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device)


def _ids(model: PreTrainedModel, rows: int, width: int) -> torch.Tensor:
    return torch.zeros(rows, width, dtype=torch.long, device=model.device)


class _Counting(TorchDispatchMode):
    """Counts the bytes of tensors that are made within the block, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._known: set[int] = set()

    def restart(self) -> None:
        """Count the most from now on; what is there stays counted."""
        self.most = self._now

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
