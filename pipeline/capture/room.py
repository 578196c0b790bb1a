"""How much memory capturing takes, counted before it runs, on a model without values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from pipeline.capture.options import BATCH as QUESTIONS
from pipeline.config.schema import LAYER, OPTIONS
from pipeline.model.decoder import Decoder
from pipeline.model.memory import Need, states_bytes, writing_bytes
from pipeline.model.residual import layout
from pipeline.model.trajectory import BATCH

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# Streams (P, T, D) that counterparts hold beside a pass: the states around a block's sublayers, and their updates.
_AROUND = 4


@dataclass(frozen=True)
class Asked:
    """What is captured: ``prompts`` tokens of each probe, at most ``steps`` tokens after each, under ``protocols``.

    ``question`` is the number of tokens of the longest question of the options protocol. ``changed`` says whether
    weights are changed, so that the layer protocol computes counterparts.
    """

    prompts: Sequence[int]
    steps: Sequence[int]
    protocols: Sequence[str]
    question: int
    changed: bool

    @property
    def positions(self) -> int:
        """The most positions N whose states are kept."""
        return sum(self.steps)

    @property
    def width(self) -> int:
        """Width of a pass over prompts and continuations."""
        return max(self.prompts) + max(self.steps)


@dataclass(frozen=True)
class States:
    """Bytes of the kept states: ``residual`` of (states, N, D), ``after`` of (sublayers, N, D), ``final`` of (N, D)."""

    residual: int
    after: int
    final: int


def kept_states(model: PreTrainedModel, positions: int) -> States:
    """Return the bytes of the states of N positions, which are kept in float32 at least."""
    states, sublayers = stream_of(model.config)
    hidden = model.get_input_embeddings().weight.shape[1]
    one = positions * hidden * torch.promote_types(model.dtype, torch.float32).itemsize
    return States(states * one, sublayers * one, one)


def stream_of(config: PretrainedConfig) -> tuple[int, int]:
    """Return the number of distinct residual states of a model and of its sublayers, by a tiny one of its type."""
    return _stream_of(config.model_type, config.get_text_config(decoder=True).num_hidden_layers)


@cache
def _stream_of(kind: str, layers: int) -> tuple[int, int]:
    # Deferred: only what is not yet there is counted.
    from pipeline.model.sources.tiny import UNBUILT, model_of, tiny_config

    try:
        decoder = Decoder(model_of(tiny_config(kind, 2), 0, torch.float32))
        plan, chained, blocks = layout(decoder), decoder.structure.chained, len(decoder.blocks)
    except UNBUILT:
        return 2 * layers + 1, 2 * layers
    sublayers = len(plan.after) * layers // blocks
    return (sublayers + 1 if chained else plan.states * layers // blocks), sublayers


def capturing(model: PreTrainedModel, asked: Asked) -> list[Need]:
    """Count what each step of capturing takes beside the weights; ``model`` is a `skeleton_of` in the dtype."""
    return list(_steps(model, asked, kept_states(model, asked.positions)))


def _steps(model: PreTrainedModel, asked: Asked, kept: States) -> Iterator[Need]:
    rows = min(BATCH, len(asked.prompts))
    yield Need(writing_bytes(model, rows, max(asked.prompts), max(asked.steps)))
    whole = states_bytes(model, rows, asked.width)
    yield Need(whole, kept.residual + kept.final)
    # Stacked from the states of each layer.
    yield Need(0, 2 * kept.residual + kept.final)
    if LAYER in asked.protocols and asked.changed:
        dense = kept.residual + kept.final
        hidden = model.get_input_embeddings().weight.shape[1]
        around = _AROUND * rows * asked.width * hidden * model.dtype.itemsize
        yield Need(whole + around + _block_bytes(model), dense + kept.after)
        # Stacked from the counterparts of each pass, then joined.
        yield Need(0, dense + 2 * kept.after)
    if OPTIONS in asked.protocols and asked.question:
        yield Need(states_bytes(model, QUESTIONS, asked.question))


def _block_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of a block: while some of its weights are changed, the others are kept."""
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = (each for each in model.modules() if isinstance(each, torch.nn.ModuleList) and len(each) == layers)
    blocks = next(lists, None)
    return 0 if blocks is None else sum(each.numel() * each.element_size() for each in blocks[0].parameters())
