"""Carry out a decision on a model: drop blocks and sublayers for real, zero weights, keep the KV cache right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from pipeline.decoder import ATTENTION, MLP, Decoder, Sublayer
from pipeline.pruners.decision import Decision


class DroppedSublayer(nn.Module):
    """Stands where a sublayer was: no parameters, no compute, a zero that the residual stream adds."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        zero = hidden_states.new_zeros(1)
        return (zero, None) if self.kind == ATTENTION else zero


def apply(model: PreTrainedModel, decision: Decision) -> None:
    """Prune ``model`` in place as decided. Weights are zeroed first, since their names count the dense blocks.

    The achieved sparsity is a property of the decision and the dense model: see ``achieved``.
    """
    decoder = Decoder(model)
    zero_weights(model, decision.masks)
    for layer in decision.attention:
        _drop(decoder.sublayer(layer, ATTENTION))
    for layer in decision.mlp:
        _drop(decoder.sublayer(layer, MLP))
    if decision.blocks:
        _remove_blocks(decoder, decision.blocks)
    if decision.attention:
        slots = range(len(decoder.blocks))
        _renumber_cache(
            decoder, [at for at in slots if not isinstance(decoder.sublayer(at, ATTENTION).module, DroppedSublayer)]
        )


def zero_weights(model: nn.Module, masks: dict[str, torch.Tensor]) -> None:
    """Set to zero the weights whose mask is True. Keys are parameter names, masks have the parameter's shape."""
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        weight.data.masked_fill_(mask.to(weight.device), 0)


@contextmanager
def pruned_weights(module: nn.Module, prefix: str, masks: dict[str, torch.Tensor]) -> Iterator[bool]:
    """Zero the masked weights of one sublayer for a while; yields whether any of its weights is masked."""
    inside = {
        name: (module.get_parameter(name.removeprefix(f"{prefix}.")), mask)
        for name, mask in masks.items()
        if name.startswith(f"{prefix}.")
    }
    backup = {name: weight.data for name, (weight, _) in inside.items()}
    try:
        for weight, mask in inside.values():
            weight.data = weight.data.masked_fill(mask.to(weight.device), 0)
        yield bool(inside)
    finally:
        for name, (weight, _) in inside.items():
            weight.data = backup[name]


def achieved(decoder: Decoder, decision: Decision) -> float:
    """Share of the dense model's decoder-block parameters that the decision removes or zeroes, in [0, 1].

    A dropped sublayer takes its norm with it. Call it on the dense model, before ``apply``.
    """
    total = sum(parameter.numel() for parameter in decoder.blocks.parameters())
    gone = sum(int(mask.sum()) for mask in decision.masks.values())
    gone += sum(p.numel() for layer in decision.blocks for p in decoder.blocks[layer].parameters())
    for kind, layers in ((ATTENTION, decision.attention), (MLP, decision.mlp)):
        for layer in set(layers) - set(decision.blocks):
            sublayer = decoder.sublayer(layer, kind)
            gone += sum(p.numel() for part in (sublayer.module, sublayer.norm) for p in part.parameters())
    return gone / total


def _drop(sublayer: Sublayer) -> None:
    setattr(sublayer.block, sublayer.module_name, DroppedSublayer(sublayer.kind))
    setattr(sublayer.block, sublayer.norm_name, nn.Identity())


def _remove_blocks(decoder: Decoder, layers: tuple[int, ...]) -> None:
    kept = [layer for layer in range(len(decoder.blocks)) if layer not in layers]
    decoder.blocks = nn.ModuleList([decoder.blocks[layer] for layer in kept])
    config = decoder.model.config
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer] for layer in kept]
    config.num_hidden_layers = len(kept)
    for slot, layer in enumerate(range(len(kept))):
        _set_cache_slot(decoder.sublayer(layer, ATTENTION).module, slot)


def _set_cache_slot(attention: nn.Module, slot: int) -> None:
    for module in attention.modules():
        if hasattr(module, "layer_idx"):
            module.__dict__["layer_idx"] = slot


def _renumber_cache(decoder: Decoder, kept: list[int]) -> None:
    """Give the remaining attention sublayers consecutive cache slots, and make every cache that short.

    The length of a cache is read from its slot 0, so a hole there would give wrong positions. The library sizes
    caches by the number of blocks, hence the hook. With no attention left there is nothing to cache.
    """
    for slot, layer in enumerate(kept):
        _set_cache_slot(decoder.sublayer(layer, ATTENTION).module, slot)
    config, blocks = decoder.model.config, len(decoder.blocks)
    if not kept:
        config.use_cache = False
        if decoder.model.generation_config is not None:
            decoder.model.generation_config.use_cache = False
        return

    def shorten(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        cache = kwargs.get("past_key_values")
        use_cache = kwargs.get("use_cache")
        if cache is None and (config.use_cache if use_cache is None else use_cache):
            cache = kwargs["past_key_values"] = DynamicCache(config=config)
        if cache is not None and len(cache.layers) == blocks:
            cache.layers = [cache.layers[layer] for layer in kept]
        return args, kwargs

    decoder.base.register_forward_pre_hook(shorten, with_kwargs=True)
