"""Achieved sparsity of a decision: the share of decoder-block parameters removed or zeroed, overall and by block.

Parameters of a block that no text passes, such as those of an idle cross-attention, count in neither.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.model.decoder import Decoder
from pipeline.model.structure import ATTENTION, MLP
from pipeline.prune.decision import Decision, facts_of

if TYPE_CHECKING:
    from torch import nn


def account(decoder: Decoder, decision: Decision) -> Decision:
    """Return the decision with its achieved sparsity: shares of parameters removed or zeroed, in [0, 1], and counts.

    It also gets the layers that mix tokens in another way than by attention.

    A dropped sublayer takes its own norms with it, and weights of dropped units that are changed as well count once.
    Call it on the dense model, before the decision is applied.
    """
    idle = [_idle_size(decoder, layer) for layer in range(len(decoder.blocks))]
    sizes = [_size(block) - unused for block, unused in zip(decoder.blocks, idle, strict=True)]
    gone = [0] * len(sizes)
    for layer in decision.changes:
        gone[layer] = _zeros(decoder, decision, layer)
    for layer in decision.blocks:
        gone[layer] = sizes[layer]
    for kind, layers in ((ATTENTION, decision.attention), (MLP, decision.mlp)):
        for layer in set(layers) - set(decision.blocks):
            gone[layer] += sublayer_size(decoder, layer, kind)
    shares = tuple(part / whole for part, whole in zip(gone, sizes, strict=True))
    whole = _size(decoder.model)
    return replace(
        decision,
        achieved=sum(gone) / sum(sizes),
        achieved_by_layer=shares,
        parameters=whole - sum(gone) - sum(idle[layer] for layer in decision.blocks),
        dense_parameters=whole,
        mixers=tuple(sublayer.layer for sublayer in decoder.sublayers() if sublayer.part.mixer),
    )


def sublayer_size(decoder: Decoder, layer: int, kind: str) -> int:
    """Return the number of parameters of a sublayer and of the norms that only it reads."""
    return sum(_size(decoder.blocks[layer].get_submodule(name)) for name in decoder.part(layer, kind).modules)


def _idle_size(decoder: Decoder, layer: int) -> int:
    """Return the number of parameters of a block that no text passes."""
    return sum(_size(decoder.blocks[layer].get_submodule(name)) for name in decoder.structure.blocks[layer].idle)


def _zeros(decoder: Decoder, decision: Decision, layer: int) -> int:
    """Count the masked weights of a block outside of its dropped sublayers."""
    dropped = [kind for kind, layers in ((ATTENTION, decision.attention), (MLP, decision.mlp)) if layer in layers]
    if not dropped:
        return facts_of(decision.changes, layer)[1]
    modules = [name for kind in dropped for name in decoder.part(layer, kind).modules]
    gone = tuple(f"{decoder.structure.name_of(layer, name)}." for name in modules)
    return sum(int(mask.sum()) for name, mask in decision.changes[layer].masks.items() if not name.startswith(gone))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
