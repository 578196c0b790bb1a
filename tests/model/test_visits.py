"""Experts that no token of the proof visits are named: the proof says nothing of their weights."""

from __future__ import annotations

import pytest
import torch

from pipeline.inspect.describe import describe, lines
from pipeline.model.decoder import Decoder
from pipeline.model.proof import prove
from pipeline.model.short_pass import tokens
from pipeline.model.sources.tiny import model_of, tiny_config
from pipeline.model.visits import listed


@pytest.mark.parametrize("kind", ["deepseek_v3", "gpt_oss", "nemotron_h"])
@torch.inference_mode()
def test_an_expert_is_named_if_its_weights_do_not_matter_to_the_proof(kind):
    model = model_of(tiny_config(kind))
    decoder = Decoder(model)
    missed = {(layer, part) for layer, parts in prove(model).items() for part in parts}
    # Once more, from what was kept.
    assert {(layer, part) for layer, parts in prove(model).items() for part in parts} == missed
    experts = 0
    for layer in range(len(decoder.blocks)):
        for linear in decoder.linears(layer):
            if linear.expert is None:
                continue
            experts += 1
            path = linear.parameter.removeprefix(f"{decoder.blocks_name}.{layer}.").rpartition(".")[0]
            kept = linear.weight.clone()
            linear.weight.fill_(torch.nan)
            spoiled = model(tokens(model), use_cache=False)[0].isnan().any()
            linear.weight.copy_(kept)
            assert spoiled != ((layer, f"{path}.{linear.expert}") in missed)
    assert experts and (missed or kind == "gpt_oss")


def test_a_description_names_them():
    found = describe(model_of(tiny_config("deepseek_v3")))
    assert found.unvisited and list(found.unvisited) == [1]
    (line,) = [line for line in lines(found) if "no token visits" in line]
    assert line == f"  no token visits {listed(found.unvisited[1])} of block 1"
    assert not describe(model_of(tiny_config("llama"))).unvisited


def test_names_with_a_number_are_listed_together():
    parts = ["mlp.experts.0", "mlp.experts.2", "mlp.experts.3", "mlp.experts.4", "mlp.experts.7", "adapter.up"]
    assert listed(parts) == "mlp.experts 0, 2 to 4, 7, adapter.up"
