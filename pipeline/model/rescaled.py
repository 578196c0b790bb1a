"""Weights that a model multiplies by powers of two in its first pass (RWKV)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pipeline.model.block_form import Unfit
from pipeline.model.structure import Structure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Number of values of each parameter that are compared.
_SAMPLES = 32


def samples(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return a few values of each parameter that is in memory, by its name."""
    found = {}
    for name, parameter in model.named_parameters():
        if not parameter.is_meta:
            values = parameter.detach().flatten()
            found[name] = values[:: max(1, len(values) // _SAMPLES)].clone()
    return found


def factors_since(model: PreTrainedModel, before: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return what each parameter was multiplied by since its samples were taken, without those that are the same.

    Raises Unfit for parameters that changed in a way that cannot be undone without loss.
    """
    found = {}
    for name, now in samples(model).items():
        if name not in before or torch.allclose(now, before[name], rtol=0, atol=0, equal_nan=True):
            continue
        some = before[name].nonzero().flatten()[:1]
        factor = float(now[some].double() / before[name][some].double()) if len(some) else 0.0
        exact = factor > 0 and math.frexp(factor)[0] == 0.5
        if not exact or not torch.equal(now, before[name] * factor):
            raise Unfit(f"its first pass changes the weights {name}")
        found[name] = factor
    return found


def rescaled(structure: Structure, factors: Mapping[str, float]) -> Structure:
    """Note in a structure what parameters of its blocks were multiplied by. Raises Unfit for parameters elsewhere."""
    if not factors:
        return structure
    prefixes = [f"{structure.blocks_name}.{place}." for place in structure.places]
    if elsewhere := [name for name in factors if not name.startswith(tuple(prefixes))]:
        raise Unfit(f"its first pass changes the weights {', '.join(elsewhere)}")
    blocks = [
        replace(
            block,
            rescaled=tuple((n.removeprefix(own), factor) for n, factor in factors.items() if n.startswith(own)),
        )
        for own, block in zip(prefixes, structure.blocks, strict=True)
    ]
    return replace(structure, blocks=tuple(blocks))
