"""A block with several attentions and MLPs by turns: those of a kind are one sublayer, whose updates are summed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from pipeline.capture.counterparts import capture_counterparts
from pipeline.model.continuations import read
from pipeline.model.decoder import Decoder
from pipeline.model.linear_inputs import linear_inputs
from pipeline.model.residual import layout, tap
from pipeline.model.sources.tiny import model_of, tiny_config
from pipeline.model.structure import ATTENTION, MLP
from pipeline.prune.base import Context
from pipeline.prune.decision import Change, Decision
from pipeline.prune.methods.blockwise import walk
from pipeline.prune.surgery import apply, change_weights

IDS = torch.arange(3, 23)[None]


@pytest.fixture
def model() -> PreTrainedModel:
    return model_of(tiny_config("longcat_flash"))


def test_every_update_of_a_kind_belongs_to_its_sublayer(model):
    block = Decoder(model).structure.blocks[0]
    writes = {part.kind: [write.module for write in part.writes] for part in block.parts}
    assert writes == {ATTENTION: ["self_attn.0", "self_attn.1"], MLP: ["mlp", "mlps.0", "mlps.1"]}
    assert not block.in_turn and not block.parallel and not block.chained


@torch.inference_mode()
def by_hand(block: torch.nn.Module, x: torch.Tensor, arguments: dict[str, Any]) -> dict[str, tuple[torch.Tensor, ...]]:
    """The stream before the first sublayer of each kind, and the updates of all of that kind."""
    first = block.self_attn[0](block.input_layernorm[0](x), **arguments)[0]
    y = x + first
    normed = block.post_attention_layernorm[0](y)
    shortcut, dense = block.mlp(normed), block.mlps[0](normed)
    second = block.self_attn[1](block.input_layernorm[1](y + dense), **arguments)[0]
    last = block.mlps[1](block.post_attention_layernorm[1](y + dense + second))
    return {ATTENTION: (x, first + second), MLP: (y, shortcut + dense + last)}


@torch.inference_mode()
def calls_of(model: PreTrainedModel) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    """Input and further arguments of each block."""
    calls: list[tuple[torch.Tensor, dict[str, Any]]] = []
    for block in Decoder(model).blocks:
        block.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args[0], kwargs)), with_kwargs=True)
    model(IDS, use_cache=False)
    return calls


def test_the_states_are_those_computed_by_hand(model):
    decoder, plan, states = Decoder(model), layout(Decoder(model)), {}
    with torch.inference_mode(), tap(decoder, lambda index, x: states.update({index: x.clone()})):
        decoder.final_states(IDS)
    for index, sublayer in enumerate(decoder.sublayers()):
        before, update = by_hand(sublayer.block, *calls_of(model_of(tiny_config("longcat_flash")))[sublayer.layer])[
            sublayer.kind
        ]
        torch.testing.assert_close(states[plan.before[index]], before)
        torch.testing.assert_close(states[plan.after[index]], before + update)


def test_a_counterpart_has_the_updates_that_changed_weights_of_a_kind_give(model):
    decoder, plan = Decoder(model), layout(Decoder(model))
    trajectory = replace(read(model, IDS.tolist()), before=plan.before, after=plan.after)
    shapes = {linear.parameter: model.get_parameter(linear.parameter).shape for linear in decoder.linears(1)}
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(shape, generator=generator) < 0.5 for name, shape in shapes.items()}
    found = capture_counterparts(model, Decision(changes={1: Change(masks)}), trajectory, lambda items, *_: items)
    calls = calls_of(model_of(tiny_config("longcat_flash")))
    for index, sublayer in enumerate(decoder.sublayers()):
        x, update = by_hand(sublayer.block, *calls[sublayer.layer])[sublayer.kind]
        if sublayer.layer == 1:
            mine = {name: mask for name, mask in masks.items() if decoder.belongs(name, 1, sublayer.kind)}
            changed = model_of(tiny_config("longcat_flash"))
            change_weights(changed, Change(mine))
            _, changed_update = by_hand(Decoder(changed).blocks[1], *calls[1])[sublayer.kind]
            assert (changed_update - update).abs().max() > 1e-2
            update = changed_update
        torch.testing.assert_close(found[index], (x + update)[0, :-1])


@pytest.mark.parametrize("kind", ["longcat_flash", "gemma4_text", "llama", "phi", "bert", "gemma2"])
@torch.no_grad()
def test_calibration_sees_the_inputs_that_the_matrices_have_in_the_model(kind):
    """The products that are left out while inputs are gathered must not be read by others in the block."""
    model = model_of(tiny_config(kind))
    decoder = Decoder(model)
    linears = [w for layer in range(len(decoder.blocks)) for w in decoder.linears(layer)]
    expected: dict[str, list[torch.Tensor]] = {}
    with linear_inputs(linears, lambda names, x: [expected.setdefault(name, []).append(x) for name in names]):
        decoder.base(IDS, use_cache=False)
    found: dict[str, list[torch.Tensor]] = {}
    for block in walk(decoder, Context([IDS]), ""):
        assert decoder.ends(block.layer)
        block.watch(lambda names, x: [found.setdefault(name, []).append(x) for name in names])
    assert expected and found.keys() >= expected.keys()
    for name, inputs in expected.items():
        torch.testing.assert_close(torch.cat(found[name]), torch.cat(inputs))


def test_a_kind_is_dropped_with_all_of_its_sublayers_and_slots_in_the_cache(model):
    apply(model, Decision(attention=(0,)))
    slots = [(attention.layer_idx) for attention in model.model.layers[1].self_attn]
    assert slots == [0, 1]
    assert model.config.use_cache


def test_the_blocks_that_are_left_have_slots_from_the_first_on():
    model = model_of(tiny_config("longcat_flash", 4))
    apply(model, Decision(blocks=(1,)))
    slots = [attention.layer_idx for block in model.model.layers for attention in block.self_attn]
    assert slots == [0, 1, 2, 3, 4, 5]
