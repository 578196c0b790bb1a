"""A model that reads a prompt in chunks is made to read it whole; blocks that run twice on a text are refused."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from pipeline.model.block_form import Unfit
from pipeline.model.chunks import ENDLESS, InChunksError, check_order, read_whole
from pipeline.model.decoder import Decoder
from pipeline.model.proof import prove
from pipeline.model.residual import tap, tap_blocks
from pipeline.model.short_pass import tokens
from pipeline.model.sources.tiny import model_of, tiny_config


def xlstm(chunk: int) -> PreTrainedModel:
    config = tiny_config("xlstm")
    config.max_inference_chunksize = chunk
    return model_of(config)


def test_only_chunks_of_the_prompt_may_pass_the_blocks_in_turn():
    check_order([0, 1, 2], [13, 13, 13], 3, 13)
    with pytest.raises(InChunksError) as found:
        check_order([0, 1, 0, 1], [8, 8, 5, 5], 2, 13)
    assert found.value.length == 8


@pytest.mark.parametrize(
    ("order", "lengths"),
    [
        ([0, 1, 0, 1], [13, 13, 13, 13]),
        ([0, 1, 0, 1], [8, 8, 6, 6]),
        ([0, 1, 0, 1], [8, 5, 5, 8]),
        ([0, 0, 1, 1], [8, 5, 8, 5]),
        ([0, 1, 0], [8, 8, 5]),
        ([1, 0], [13, 13]),
        ([0], [13]),
    ],
)
def test_any_other_order_is_refused(order, lengths):
    with pytest.raises(Unfit, match="run in the order"):
        check_order(order, lengths, 2, 13)


def test_the_chunks_of_a_prompt_are_made_longer_and_nothing_else_is():
    model, ids = xlstm(8), torch.arange(40)[None]
    fields = model.config.to_dict()
    assert list(fields.values()).count(8) > 1
    whole = xlstm(64)
    prove(model)
    assert model.config.to_dict() == fields | {"max_inference_chunksize": ENDLESS}
    with torch.inference_mode():
        assert torch.equal(model(ids, use_cache=False)[0], whole(ids, use_cache=False)[0])


def test_chunks_that_cannot_be_made_longer_are_refused():
    model = xlstm(8)
    fields = model.config.to_dict()
    with pytest.raises(Unfit, match="no field of its configuration makes them longer"):
        read_whole(model, list(model.backbone.blocks), 7, tokens(model))
    # A field that makes them longer, of a model that then computes something else.
    model.backbone.out_norm.register_forward_hook(lambda *_: torch.randn(1, 13, 32))
    with pytest.raises(Unfit, match="no field of its configuration makes them longer"):
        read_whole(model, list(model.backbone.blocks), 8, tokens(model))
    assert model.config.to_dict() == fields


@pytest.mark.parametrize("watch", [tap, tap_blocks])
def test_states_of_a_text_that_is_longer_than_a_chunk_are_not_captured(watch):
    model = xlstm(16)
    states: list[int] = []
    with watch(Decoder(model), lambda index, state: states.append(index)):
        for _ in range(2):
            model(torch.arange(16)[None], use_cache=False)
        assert states
        with pytest.raises(ValueError, match="in chunks; shorten it"):
            model(torch.arange(17)[None], use_cache=False)
