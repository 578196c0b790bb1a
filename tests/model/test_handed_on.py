"""A dropped sublayer hands on the state that it was given, so that the others still generate with their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from pipeline.inspect.tiny_models import same_cached
from pipeline.model.decoder import Decoder
from pipeline.model.dropped import DroppedSublayer
from pipeline.model.proof import prove
from pipeline.model.sources.tiny import model_of, tiny_config
from pipeline.model.structure import Stub
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply


@pytest.fixture
def xlstm() -> PreTrainedModel:
    model = model_of(tiny_config("xlstm", 3))
    prove(model)
    return model


@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_recurrent_model_keeps_its_cache_without_some_mixers(xlstm, gone):
    assert Decoder(xlstm).part(0, "attention").stubs[-1].handed == ((1, 1),)
    apply(xlstm, Decision(attention=gone))
    assert xlstm.config.use_cache
    same_cached(xlstm)


def test_a_cache_that_goes_wrong_without_the_state_is_not_used(xlstm):
    structure = Decoder(xlstm).structure

    def forgetful(stub: Stub) -> Stub:
        return replace(stub, handed=())

    blocks = [
        replace(block, parts=tuple(replace(part, stubs=tuple(map(forgetful, part.stubs))) for part in block.parts))
        for block in structure.blocks
    ]
    xlstm.residual_structure = replace(structure, blocks=tuple(blocks))
    apply(xlstm, Decision(attention=(1,)))
    assert not xlstm.config.use_cache


def test_attention_weights_and_masks_are_no_states():
    for kind in ("gpt2", "bert", "llama"):
        for block in Decoder(model_of(tiny_config(kind))).structure.blocks:
            assert not [place for part in block.parts for stub in part.stubs for place in stub.handed]


def test_a_stand_in_hands_on_what_it_is_given_by_place_or_by_name():
    x, state, other = torch.ones(1, 2, 4), (torch.ones(3),), object()
    stand_in = DroppedSublayer(Stub(3, 4, handed=((1, 1), (2, "cache"))))
    zeros, first, second = stand_in(x, state, cache=other)
    assert not zeros.any() and first is state and second is other
    assert stand_in(x, state)[2] is None
