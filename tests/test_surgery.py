from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.decoder import Decoder
from pipeline.pruners.decision import Decision, pack, unpack
from pipeline.surgery import achieved, apply

DROPS = {
    "nothing": Decision(),
    "first attention": Decision(attention=(0,)),
    "attention 0 and 2": Decision(attention=(0, 2)),
    "all attention": Decision(attention=(0, 1, 2, 3)),
    "first mlp": Decision(mlp=(0,)),
    "first block": Decision(blocks=(0,)),
    "two blocks": Decision(blocks=(1, 2)),
    "blocks and attention of others": Decision(blocks=(1,), attention=(0, 1)),
}


def generate(model, use_cache: bool) -> torch.Tensor:
    torch.manual_seed(1)
    ids = torch.randint(0, 250, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return model.generate(
        ids, attention_mask=mask, max_new_tokens=12, do_sample=False, use_cache=use_cache, eos_token_id=None
    )


@pytest.mark.parametrize("drop", DROPS)
def test_generation_with_the_cache_equals_generation_without(make_model, architecture, drop):
    model = make_model(architecture)
    apply(model, DROPS[drop])
    without = generate(model, use_cache=False)
    assert torch.equal(generate(model, use_cache=model.config.use_cache), without)
    assert without.shape == (2, 21)


@pytest.mark.parametrize(
    ("drop", "slots"), [("first attention", 3), ("attention 0 and 2", 2), ("first block", 3), ("first mlp", 4)]
)
def test_the_cache_is_as_long_as_there_is_attention(make_model, architecture, drop, slots):
    model = make_model(architecture)
    apply(model, DROPS[drop])
    ids = torch.randint(0, 250, (1, 7))
    cache = model(ids, use_cache=True).past_key_values
    assert len(cache.layers) == slots
    assert all(layer.keys is not None and layer.keys.shape[-2] == 7 for layer in cache.layers)


@pytest.mark.parametrize("drop", [name for name in DROPS if name != "nothing"])
def test_compute_and_parameters_are_gone(make_model, architecture, drop):
    dense, pruned, decision = make_model(architecture), make_model(architecture), DROPS[drop]
    share = achieved(Decoder(dense), decision)
    apply(pruned, decision)
    parameters = [sum(p.numel() for p in Decoder(model).blocks.parameters()) for model in (dense, pruned)]
    assert parameters[1] == pytest.approx(parameters[0] * (1 - share))
    ids, flops = torch.randint(0, 250, (1, 16)), []
    for model in (dense, pruned):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            Decoder(model).base(ids, use_cache=False)
        flops.append(counter.get_total_flops())
    assert flops[1] < flops[0]
    assert flops[1] / flops[0] == pytest.approx(1 - share, abs=0.12)


def test_a_dropped_sublayer_leaves_the_residual_stream_as_it_was(make_model, architecture):
    model = make_model(architecture)
    reference = make_model(architecture)
    apply(model, Decision(attention=(1,), mlp=(2,)))
    block = Decoder(reference).blocks
    with torch.no_grad():
        block[1].self_attn.o_proj.weight.zero_()
        block[2].mlp.down_proj.weight.zero_()
    ids = torch.randint(0, 250, (2, 11))
    torch.testing.assert_close(model(ids).logits, reference(ids).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5), (8,), (1, 1), (7, 16)])
def test_packed_masks_come_back(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(unpack(pack(mask), shape), mask)
    assert pack(mask).numel() == -(-mask.numel() // 8)


def test_a_decision_survives_the_disk(tmp_path):
    decision = Decision(
        attention=(1,), masks={"a.weight": torch.eye(3).bool()}, scores=[{"layer": 0, "score": 0.5}], achieved=0.25
    )
    decision.save(tmp_path)
    loaded = Decision.load(tmp_path)
    assert torch.equal(loaded.masks["a.weight"], decision.masks["a.weight"])
    assert (loaded.attention, loaded.scores, loaded.achieved) == (
        decision.attention,
        decision.scores,
        decision.achieved,
    )


def test_an_unknown_architecture_says_what_an_entry_needs(make_model):
    model = make_model()
    model.config.model_type = "novel"
    with pytest.raises(ValueError, match=r"'novel' is not supported.*decoder\.py"):
        Decoder(model)
