"""Carries out a decision on a model: drops blocks and sublayers, changes weights, and keeps the KV cache correct."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.model.as_read import forget_rounding
from pipeline.model.decoder import Decoder
from pipeline.model.dropped import PassedBlock, Replaced, drop, is_dropped
from pipeline.model.offload import is_offloaded, resident
from pipeline.model.proof import caches_well
from pipeline.model.short_pass import evaluating, tokens
from pipeline.model.structure import ATTENTION, BLOCK, CACHE_SLOTS, MLP
from pipeline.prune.decision import Change, Decision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


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
    # The dense model was proven in this place, and amplifies rounding less.
    forget_rounding(model)
    if decision.blocks:
        with dropped(decoder, {BLOCK: decision.blocks}):
            expected = _outputs(decoder, decision)
        remove_blocks(decoder, decision.blocks)
    if decision.attention and not decoder.structure.encoder:
        _renumber_cache(decoder, [at for at in range(len(decoder.blocks)) if _cache_slots(decoder, at)])
        if decoder.uses_cache and not is_offloaded(model) and not caches_well(decoder):
            log.warning("a %s model without this attention has no right cache: using none", model.config.model_type)
            _without_cache(decoder)
    if decision.drops:
        found = _outputs(decoder, decision)
        if decision.blocks and not torch.allclose(found, expected, rtol=1e-2, atol=1e-3, equal_nan=True):
            raise ValueError(
                f"a {model.config.model_type} model without blocks {_listed(decision.blocks)} computes something else "
                "than its other blocks do, since these depend on their number; drop sublayers instead of blocks"
            )
    return gone


@torch.inference_mode()
def _outputs(decoder: Decoder, decision: Decision) -> torch.Tensor:
    """Compute outputs on a few tokens. Raises ValueError for a model that does not run without what was dropped."""
    try:
        with evaluating(decoder.model):
            return decoder.model(tokens(decoder.model).to(decoder.device), use_cache=False)[0]
    except (KeyError, IndexError, AttributeError, TypeError, RuntimeError) as error:
        gone = {"blocks": decision.blocks, "attention of blocks": decision.attention, "MLP of blocks": decision.mlp}
        what = " and ".join(f"{name} {_listed(layers)}" for name, layers in gone.items() if layers)
        raise ValueError(
            f"a {decoder.model.config.model_type} model does not run without {what} ({type(error).__name__}: {error}): "
            "other sublayers read what these compute, such as shared keys and values; drop others"
        ) from error


def _listed(layers: Iterable[int]) -> str:
    return ", ".join(map(str, layers))


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
                    listed, place = decoder.block_list, decoder.structure.places[layer]
                    stack.callback(listed.__setitem__, place, listed[place])
                    listed[place] = PassedBlock(listed[place], decoder.structure.blocks[layer].several)
                    continue
                for parent, name, module in drop(decoder, layer, kind):
                    stack.callback(setattr, parent, name, module)
        yield


def remove_blocks(decoder: Decoder, layers: Iterable[int]) -> None:
    """Remove whole blocks, from the model and from its configuration."""
    gone = set(layers)
    decoder.keep_blocks([layer for layer in range(len(decoder.blocks)) if layer not in gone])
    width = _width(decoder)
    own = {place: _cache_slots(decoder, layer) for layer, place in enumerate(decoder.structure.places)}
    for place, block in enumerate(decoder.block_list):
        _set_cache_slots(block, own.get(place, []), place * width)
    if not decoder.structure.encoder and not _counts_tokens(decoder):
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


def _cache_slots(decoder: Decoder, layer: int) -> list[int]:
    """Return the slots in the cache of the modules of a block that are left, in ascending order."""
    modules = dict(decoder.blocks[layer].named_modules())
    left = [modules.get(path) for path in decoder.structure.blocks[layer].caches]
    return sorted({getattr(module, name) for module in left for name in CACHE_SLOTS if _is_slot(module, name)})


def _is_slot(module: nn.Module | None, name: str) -> bool:
    """Return whether an attribute is a slot; a module that is told its block in each pass (Zamba) has None or -1."""
    slot = getattr(module, name, None)
    return isinstance(slot, int) and slot >= 0


def _width(decoder: Decoder) -> int:
    """Return the number of slots that a block has: one, or one for each of its attention sublayers."""
    return max(1, *(len(_cache_slots(decoder, layer)) for layer in range(len(decoder.blocks))))


def _set_cache_slots(block: nn.Module, own: Sequence[int], first: int) -> None:
    """Give the modules of a block, which have the slots ``own``, those from ``first`` on, in the same order."""
    slots = {slot: first + number for number, slot in enumerate(own)}
    for module in block.modules():
        for name in CACHE_SLOTS:
            if _is_slot(module, name):
                module.__dict__[name] = slots.get(getattr(module, name), first)


def _renumber_cache(decoder: Decoder, kept: list[int]) -> None:
    """Give the remaining attention sublayers consecutive cache slots, and shorten every cache to these slots.

    The length of a cache is read from its slot 0, so a hole there would give wrong positions. The library sizes
    caches by the number of blocks, hence the hook. With no attention left there is nothing to cache.
    """
    width, places = _width(decoder), decoder.structure.places
    for number, layer in enumerate(kept):
        _set_cache_slots(decoder.blocks[layer], _cache_slots(decoder, layer), number * width)
    if not any(block.caches for block in decoder.structure.blocks):
        # Blocks that hand their state on have no slots (xLSTM).
        return
    config, slots = decoder.model.config, len(decoder.block_list) * width
    if not kept or not _counts_tokens(decoder):
        _without_cache(decoder)
        return

    # Deferred: a job that finds its results loads no model.
    from transformers import DynamicCache

    def shorten(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        cache = kwargs.get("past_key_values")
        use_cache = kwargs.get("use_cache")
        if cache is None and (decoder.uses_cache if use_cache is None else use_cache):
            cache = kwargs["past_key_values"] = DynamicCache(config=config)
        # Decoders of other models have a second cache, for what an encoder read.
        cache = getattr(cache, "self_attention_cache", cache)
        if cache is not None and len(cache.layers) == slots:
            cache.layers = [cache.layers[places[layer] * width + slot] for layer in kept for slot in range(width)]
        return args, kwargs

    decoder.holder.register_forward_pre_hook(shorten, with_kwargs=True)
