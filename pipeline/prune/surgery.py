"""Carries out a decision on a model: drops blocks and sublayers, changes weights, and keeps the KV cache correct."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from transformers import DynamicCache, PreTrainedModel

from pipeline.model.decoder import Decoder
from pipeline.model.dropped import PassedBlock, Replaced, drop, is_dropped
from pipeline.model.offload import resident
from pipeline.model.structure import ATTENTION, BLOCK, MLP
from pipeline.prune.decision import Change, Decision

# Attribute in which modules keep the number of their slot in the cache.
_SLOT = "layer_idx"


def apply(model: PreTrainedModel, decision: Decision) -> list[Replaced]:
    """Prune ``model`` in place as decided; return the modules of dropped sublayers.

    Weights change first, since their names count the dense blocks. The achieved sparsity is a property of the decision
    and the dense model: see ``pipeline.prune.accounting``.
    """
    decoder = Decoder(model)
    change_blocks(decoder, decision)
    gone = [
        replaced
        for kind, layers in ((ATTENTION, decision.attention), (MLP, decision.mlp))
        for layer in layers
        for replaced in drop(decoder, layer, kind)
    ]
    if decision.blocks:
        remove_blocks(decoder, decision.blocks)
    if decision.attention:
        _renumber_cache(decoder, [at for at, block in enumerate(decoder.blocks) if _caches(block)])
    return gone


def change_blocks(decoder: Decoder, decision: Decision) -> None:
    """Carry out a decision's weight changes, block by block, wherever the weights are."""
    for layer, change in decision.changes.items():
        with resident(decoder.blocks[layer], write=True):
            change_weights(decoder.model, change)


def change_weights(model: nn.Module, change: Change) -> None:
    """Put new weights in place and set masked ones to zero, in the model's dtype and on its device."""
    for name, value in change.weights.items():
        parameter = model.get_parameter(name)
        parameter.data.copy_(value)
    for name, mask in change.masks.items():
        parameter = model.get_parameter(name)
        parameter.data.masked_fill_(mask.to(parameter.device), 0)


@contextmanager
def changed_weights(model: nn.Module, change: Change, names: Iterable[str]) -> Iterator[None]:
    """Apply a change to the named parameters only, for the duration of the block."""
    parameters = {name: model.get_parameter(name) for name in names}
    assert not any(parameter.is_meta for parameter in parameters.values()), (
        "weights are offloaded: make the block resident first"
    )
    backup = {name: parameter.data for name, parameter in parameters.items()}
    part = Change(
        {name: mask for name, mask in change.masks.items() if name in parameters},
        {name: value for name, value in change.weights.items() if name in parameters},
    )
    try:
        for parameter in parameters.values():
            parameter.data = parameter.data.clone()
        change_weights(model, part)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = backup[name]


@contextmanager
def dropped(decoder: Decoder, sublayers: Mapping[str, Iterable[int]]) -> Iterator[None]:
    """Drop sublayers or blocks (layer numbers by kind) for the duration of the block. For passes without a KV cache."""
    with ExitStack() as stack:
        for kind, layers in sublayers.items():
            for layer in layers:
                if kind == BLOCK:
                    stack.callback(decoder.blocks.__setitem__, layer, decoder.blocks[layer])
                    decoder.blocks[layer] = PassedBlock(decoder.blocks[layer], decoder.structure.blocks[layer].several)
                    continue
                for parent, name, module in drop(decoder, layer, kind):
                    stack.callback(setattr, parent, name, module)
        yield


def remove_blocks(decoder: Decoder, layers: Iterable[int]) -> None:
    """Remove whole blocks, from the model and from its configuration."""
    gone = set(layers)
    decoder.keep_blocks([layer for layer in range(len(decoder.blocks)) if layer not in gone])
    for slot in range(len(decoder.blocks)):
        _set_cache_slot(decoder, slot, slot)
    if not _counts_tokens(decoder):
        _without_cache(decoder)


def _counts_tokens(decoder: Decoder) -> bool:
    """Return whether positions can be counted: the cache of attention does so, in a model of attention and mixers."""
    mixing = [sublayer for sublayer in decoder.sublayers() if sublayer.kind == ATTENTION]
    left = [s for s in mixing if not is_dropped(decoder, s.layer, s.kind)]
    return any(not s.part.mixer for s in left) or decoder.structure.mixers_only


def _without_cache(decoder: Decoder) -> None:
    decoder.model.config.use_cache = False
    if decoder.model.generation_config is not None:
        decoder.model.generation_config.use_cache = False


def _caches(block: nn.Module) -> bool:
    """Return whether a module of a block, not the block itself, has a slot in the cache."""
    return any(hasattr(module, _SLOT) for module in block.modules() if module is not block)


def _set_cache_slot(decoder: Decoder, layer: int, slot: int) -> None:
    for module in decoder.blocks[layer].modules():
        if hasattr(module, _SLOT):
            module.__dict__[_SLOT] = slot


def _renumber_cache(decoder: Decoder, kept: list[int]) -> None:
    """Give the remaining attention sublayers consecutive cache slots, and shorten every cache to these slots.

    The length of a cache is read from its slot 0, so a hole there would give wrong positions. The library sizes
    caches by the number of blocks, hence the hook. With no attention left there is nothing to cache.
    """
    if decoder.structure.encoder:
        return
    for slot, layer in enumerate(kept):
        _set_cache_slot(decoder, layer, slot)
    config, blocks = decoder.model.config, len(decoder.blocks)
    if not kept or not _counts_tokens(decoder):
        _without_cache(decoder)
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
