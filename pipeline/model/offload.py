"""Blocks whose weights are on disk or on another device: bring them into memory for a while, write changes back.

accelerate places the weights (``model.device_map``). Its hooks load a module's weights for each forward pass and drop
them afterwards; here the weights of a block stay as long as the block is worked on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def resident(block: nn.Module, write: bool = False) -> Iterator[None]:
    """Keep the weights of ``block`` in memory within the context; a block that is in memory anyway is left alone.

    ``write`` writes the weights, as they are at the end, back to where they were loaded from. Without it, changes to
    offloaded weights are lost.
    """
    away: list[tuple[nn.Module, Any]] = [(module, module._hf_hook) for module in block.modules() if _is_away(module)]
    for module, hook in away:
        hook.pre_forward(module)
        hook.offload = False
    try:
        yield
        if write:
            for module, hook in away:
                _write(module, hook)
    finally:
        for module, hook in away:
            hook.offload = True
            hook.post_forward(module, None)


def is_offloaded(model: nn.Module) -> bool:
    """Return whether any weights of a model are not in memory."""
    return any(_is_away(module) for module in model.modules())


def _is_away(module: nn.Module) -> bool:
    return bool(getattr(getattr(module, "_hf_hook", None), "offload", False))


def _write(module: nn.Module, hook: Any) -> None:
    # Deferred: most models fit into memory.
    from accelerate.utils.offload import offload_weight

    weights, prefix = hook.weights_map.dataset, hook.weights_map.prefix
    for name, parameter in module.named_parameters(recurse=False):
        key = f"{prefix}{name}"
        if key in weights.state_dict:
            weights.state_dict[key] = parameter.data.cpu()
        else:
            offload_weight(parameter.data, key, weights.save_folder, weights.index)
