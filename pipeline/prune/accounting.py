"""Achieved sparsity of a decision: the share of decoder-block parameters removed or zeroed, overall and by block."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from pipeline.model.architectures import ATTENTION, MLP, SUBLAYERS
from pipeline.model.decoder import Decoder
from pipeline.prune.decision import Decision, facts_of


def account(decoder: Decoder, decision: Decision) -> Decision:
    """Return the decision with its achieved sparsity: shares of parameters removed or zeroed, in [0, 1], and counts.

    A dropped sublayer takes its own norms with it. Call it on the dense model, before the decision is applied.
    Raises ValueError for a decision that both drops units and changes weights.
    """
    if decision.drops and decision.changes:
        raise ValueError("a decision either drops units or changes weights; this one does both")
    sizes = [_size(block) for block in decoder.blocks]
    gone = [0] * len(sizes)
    for layer in decision.changes:
        gone[layer] = facts_of(decision.changes, layer)[1]
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
        parameters=whole - sum(gone),
        dense_parameters=whole,
    )


def sublayer_size(decoder: Decoder, layer: int, kind: str) -> int:
    """Return the number of parameters of a sublayer and of the norms that only it reads."""
    part, block = decoder.part(kind), decoder.blocks[layer]
    others = {decoder.part(other).norm for other in SUBLAYERS if other != kind}
    norms = [norm for norm in (part.norm, part.post_norm) if norm and norm not in others]
    return sum(_size(block.get_submodule(name)) for name in [*part.modules, *norms])


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
