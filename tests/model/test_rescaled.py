"""A model that halves its stream between blocks, and in its first pass the weights behind, to stay within float16."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pipeline.model.block_form import Unfit
from pipeline.model.decoder import Decoder
from pipeline.model.proof import ROUNDING, drops, equations, prove
from pipeline.model.rescaled import factors_since, samples
from pipeline.prune.base import Context
from pipeline.prune.checkpoint import probe_outputs, write_checkpoint
from pipeline.prune.decision import Decision
from pipeline.prune.methods.blockwise import walk
from pipeline.prune.surgery import apply

ATTENTION, MLP = "attention.output.weight", "feed_forward.value.weight"


def rwkv(blocks: int = 3) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": blocks, "vocab_size": 300, "rescale_every": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("rwkv", **sizes)).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return model


@pytest.mark.parametrize("blocks", [2, 3])
def test_the_factors_of_the_stream_and_of_the_weights_are_found(blocks):
    model = rwkv(blocks)
    structure = Decoder(model).structure
    assert [block.passed for block in structure.blocks] == [1, 0.5, 1][:blocks]
    halved = ((ATTENTION, 0.5), (MLP, 0.5))
    assert [block.rescaled for block in structure.blocks] == [(), (), halved][:blocks]
    assert not structure.chained
    for prove_one in (equations, drops):
        assert all(error <= ROUNDING[torch.float32] for error, _ in prove_one(Decoder(model)))


@pytest.mark.parametrize(("blocks", "where"), [(3, "input of block 2"), (2, "logits")])
def test_a_factor_that_was_not_seen_is_refused(blocks, where):
    model = rwkv(blocks)
    structure = Decoder(model).structure
    unseen = tuple(replace(block, passed=1.0) for block in structure.blocks)
    # A norm undoes a factor, but for the number that keeps it from dividing by zero.
    model.rwkv.ln_out.eps = 10.0
    model.residual_structure = replace(structure, blocks=unseen)
    with pytest.raises(Unfit, match=f"{where}.* does not hold"):
        prove(model)


def test_calibration_gives_every_block_the_stream_that_the_model_gives_it():
    model, ids = rwkv(), torch.arange(32)[None]
    given: list[torch.Tensor] = []
    for block in model.rwkv.blocks:
        block.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    prove(model)
    given.clear()
    model(ids, use_cache=False)
    expected = list(given)
    found = [block.inputs[0] for block in walk(Decoder(model), Context([ids]), "")]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("decision", [Decision(), Decision(blocks=(2,))])
def test_an_exported_checkpoint_has_the_weights_from_before_the_first_pass(decision, tmp_path):
    model, loaded = rwkv(), rwkv().state_dict()
    prove(model)
    apply(model, decision)
    expected = probe_outputs(model)
    write_checkpoint(lambda: model, None, tmp_path / "export", expected, lambda folder, written: None)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "export").state_dict()
    assert again and all(torch.equal(weight, loaded[name]) for name, weight in again.items())
    # The model itself computes as before.
    torch.testing.assert_close(probe_outputs(model), expected, rtol=0, atol=0)


def test_weights_that_change_in_another_way_are_refused():
    model = rwkv()
    before = samples(model)
    assert factors_since(model, before) == {}
    model.head.weight.data.mul_(0.25)
    assert factors_since(model, before) == {"head.weight": 0.25}
    model.head.weight.data.add_(1)
    with pytest.raises(Unfit, match=r"first pass changes the weights head\.weight"):
        factors_since(model, before)


def test_a_cache_that_mixes_up_the_rows_of_a_batch_is_not_used():
    model = rwkv()
    prove(model)
    assert not model.config.use_cache
