"""Tiny models of a type to try things on, decisions to carry out on them, and what they are compared by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.config.sparsity import parse
from pipeline.model import proof
from pipeline.model.block_list import block_list
from pipeline.model.decoder import Decoder
from pipeline.model.discovery import structure_of
from pipeline.model.sources.tiny import model_of, tiny_config
from pipeline.model.structure import ATTENTION, SUBLAYERS, Structure
from pipeline.prune.base import Context
from pipeline.prune.decision import Decision
from pipeline.prune.methods.wanda import Wanda
from pipeline.prune.surgery import apply

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# More tokens than any window or chunk of a tiny model has, and tokens to generate.
_TOKENS, _NEW = 32, 8
# Blocks that a model has at most to be made deeper.
_SHALLOW = 3
# Largest difference of logits, relative to the largest, that another order of summation explains in float32.
_NEAR = 1e-4


class Wrong(Exception):
    """A step gave something else than plain transformers."""


@dataclass(frozen=True)
class Kind:
    """A type of transformers, as a causal model or as an encoder."""

    name: str
    encoder: bool = False

    def config(self, layers: int | None = None) -> PretrainedConfig:
        """Return a tiny configuration of ``layers`` blocks, or of one of every kind."""
        return tiny_config(self.name, layers, encoder=self.encoder)


@cache
def _config(kind: Kind) -> PretrainedConfig:
    """Return a tiny configuration with two blocks of every kind where the type has such: one can be removed."""
    config = kind.config()
    depth = len(_blocks(config))
    try:
        deeper = kind.config(2 * depth)
        model_of(copy.deepcopy(deeper))
    except (ValueError, RuntimeError, TypeError, KeyError, IndexError):
        return config
    return deeper if depth <= _SHALLOW else config


def _blocks(config: PretrainedConfig) -> tuple[nn.Module, ...]:
    with torch.no_grad():
        return block_list(model_of(copy.deepcopy(config))).blocks


def fresh(kind: Kind) -> PreTrainedModel:
    """Return a tiny model of a type, the same each time."""
    model = model_of(copy.deepcopy(_config(kind)))
    model.residual_structure, changed = _proven(kind)
    vars(model.config).update(changed)
    # Some types (RWKV) change their weights in their first pass.
    logits(model)
    return model


@cache
def _proven(kind: Kind) -> tuple[Structure, Mapping[str, Any]]:
    """Return the structure of a type, and what its proof changes in the configuration: no cache where that is wrong."""
    model = model_of(copy.deepcopy(_config(kind)))
    before = dict(vars(model.config))
    proof.prove(model)
    changed = {name: value for name, value in vars(model.config).items() if value != before.get(name)}
    return structure_of(model), changed


def tokens() -> torch.Tensor:
    """Return two rows of token ids (2, _TOKENS)."""
    return torch.randint(3, 250, (2, _TOKENS), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    """Compute logits (2, T, V), or the final states (2, T, D) of an encoder, without a cache."""
    found: torch.Tensor = model(tokens(), use_cache=False)[0]
    return found


@contextmanager
def silenced(decoder: Decoder, decision: Decision) -> Iterator[None]:
    """Let the modules of dropped sublayers write zeros within the block, without any surgery."""

    def zeros(beside: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, tuple | list):
                return torch.zeros_like(output)
            added = (0, beside)
            return type(output)([torch.zeros_like(x) if at in added else x for at, x in enumerate(output)])

        return hook

    with ExitStack() as stack:
        for layer, kind in decision.dropped:
            sublayer = decoder.sublayer(layer, kind)
            for module, write in zip(sublayer.exits, sublayer.part.writes, strict=True):
                stack.callback(module.register_forward_hook(zeros(write.beside)).remove)
        yield


def sublayer_decisions(kind: Kind) -> list[Decision]:
    """Return decisions that drop the first, and the last, sublayer of each kind that the model runs without.

    A sublayer whose keys and values others share may be refused, but not all of a kind.
    """
    decoder = Decoder(fresh(kind))
    found: list[Decision] = []
    for part in SUBLAYERS:
        layers = [layer for layer in range(len(decoder.blocks)) if decoder.has(layer, part)]
        free = []
        for layer in layers:
            decision = Decision(attention=(layer,)) if part == ATTENTION else Decision(mlp=(layer,))
            with suppress(ValueError):
                apply(fresh(kind), decision)
                free.append(decision)
        if layers and not free:
            raise Wrong(f"no {part} sublayer can be dropped")
        found += [free[at] for at in dict.fromkeys((0, len(free) - 1)) if free]
    return found


def block_decisions(kind: Kind) -> Iterator[Decision]:
    """Yield decisions to remove a block, those in the middle first, whose others do not depend on its number.

    Where a configuration says by position what a block is, only some blocks can be removed.
    """
    last = len(Decoder(fresh(kind)).blocks) - 1
    problem: ValueError = ValueError("it has one block")
    found = 0
    for layer in dict.fromkeys((*range(1, last), 0, last)):
        try:
            apply(fresh(kind), decision := Decision(blocks=(layer,)))
        except ValueError as error:
            problem = error
        else:
            found += 1
            yield decision
    if not found:
        raise problem


def wanda_decision(kind: Kind) -> Decision:
    model = fresh(kind)
    return Wanda(name="wanda").decide(Decoder(model), parse(0.5), Context([tokens()]))


def same(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Raise Wrong unless two results differ by rounding alone."""
    off = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    if not off <= _NEAR:
        raise Wrong(f"{what}: off by {off:.1e} of the largest")


@torch.no_grad()
def same_cached(model: PreTrainedModel) -> None:
    """Raise Wrong unless a model that generates gives the same tokens with a cache and without one."""
    if Decoder(model).structure.encoder:
        return
    ids = tokens()
    settings: dict[str, Any] = {"max_new_tokens": _NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones_like(ids)
    cached, plain = (
        model.generate(ids, attention_mask=mask, use_cache=cache and Decoder(model).uses_cache, **settings).tolist()
        for cache in (True, False)
    )
    if cached != plain:
        raise Wrong("generation with a cache differs from generation without one")


def named(decision: Decision) -> str:
    parts: Sequence[tuple[str, Any]] = (
        ("without attention", decision.attention),
        ("without MLP", decision.mlp),
        ("without a block", decision.blocks),
        ("changed weights", decision.changes),
    )
    return next(name for name, value in parts if value)
