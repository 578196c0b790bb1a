"""A model is proven to compute what was found on it; what adds to the residual stream in another way is refused."""

from __future__ import annotations

from copy import deepcopy
from types import MethodType

import pytest
import torch
from cases import ENCODERS
from helpers import context_for, pruner_of
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pipeline.config.sparsity import parse
from pipeline.measure.stage import head_and_norm
from pipeline.model.block_form import Unfit
from pipeline.model.decoder import Decoder
from pipeline.model.proof import ROUNDING, drops, equations, head_of, prove
from pipeline.model.residual import tap
from pipeline.model.sources.random import RandomModel
from pipeline.prune.decision import Decision
from pipeline.prune.pruned_model import decision_of
from pipeline.prune.surgery import apply
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Store

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def tiny(kind: str, dtype: torch.dtype = torch.float32, **fields: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **deepcopy(SIZES | fields))
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "fields", "scale", "updates"),
    [
        ("granite", {"logits_scaling": 8.0}, 1 / 8, 1.0),
        ("granite", {"residual_multiplier": 0.22}, 1.0, 0.22),
        ("granite", {"embedding_multiplier": 12.0, "attention_multiplier": 0.015, "logits_scaling": 1.0}, 1.0, 1.0),
        ("cohere", {"logit_scale": 0.0625}, 0.0625, 1.0),
        ("gemma2", {"final_logit_softcapping": 3.0, "head_dim": 8}, 1.0, 1.0),
        ("llama", {"tie_word_embeddings": True}, 1.0, 1.0),
        ("llama", {"attention_bias": True, "mlp_bias": True}, 1.0, 1.0),
    ],
)
def test_factors_are_found_and_the_logits_of_the_head_are_the_models_own(kind, fields, scale, updates, dtype):
    model = tiny(kind, dtype, **fields)
    assert_own_logits(model, dtype)
    structure = Decoder(model).structure
    assert structure.head_scale == pytest.approx(scale)
    assert structure.head_cap == fields.get("final_logit_softcapping")
    factors = [write.scale for block in structure.blocks for part in block.parts for write in part.writes]
    assert factors == pytest.approx([updates] * 6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_family_is_proven(architecture, dtype, tmp_path):
    if dtype == torch.float64 and architecture in ("mixtral", "qwen2_moe", "qwen3_moe"):
        pytest.skip("its experts do not compute in float64")
    model = RandomModel(name="random", architecture=architecture).load(dtype, Store(tmp_path))
    for prove_one in (equations, drops):
        assert all(error <= ROUNDING[dtype] for error, _ in prove_one(Decoder(model)))
    if architecture not in ENCODERS:
        assert_own_logits(model, dtype)


@torch.inference_mode()
def assert_own_logits(model: PreTrainedModel, dtype: torch.dtype) -> None:
    ids = torch.randint(0, 250, (1, 20), generator=torch.Generator().manual_seed(1))
    states = Decoder(model).final_states(ids)[0]
    found, expected = head_of(Decoder(model)).logits(states), model(ids).logits[0]
    near = {torch.float32: 1e-5, torch.float64: 1e-10, torch.bfloat16: 0.02}[dtype] * float(expected.abs().max())
    assert float((found - expected).abs().max()) <= near


def halves_its_stream(block, x, **rest):
    return 0.5 * x + block.mlp(block.post_attention_layernorm(x))


def normalises_the_sum_twice(block, x, **rest):
    total = x + block.mlp(x)
    return block.input_layernorm(block.post_attention_layernorm(total).sigmoid())


def gates_its_stream(block, x, **rest):
    return x.sigmoid() * x + block.mlp(block.post_attention_layernorm(x))


def normalises_anything_twice(block, x, **rest):
    norm = block.post_attention_layernorm
    return norm(norm(x + block.mlp(x)) + x.sigmoid())


def runs_twice(block, x, **rest):
    for _ in range(2):
        x = x + block.mlp(block.post_attention_layernorm(x))
    return x


def adds_to_itself(block, x, **rest):
    return x + block.mlp(block.post_attention_layernorm(x)) * block.input_layernorm(x)


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (
            halves_its_stream,
            r"block 1 scales its residual stream by 0\.5: it returns 0\.5·stream \+ 1·mlp, without a norm",
        ),
        (normalises_the_sum_twice, "block 1 returns 1·input_layernorm, without the stream"),
        (normalises_anything_twice, "block 1 runs post_attention_layernorm more than once"),
        (gates_its_stream, "block 1 does not return its input with the outputs of modules added"),
        (runs_twice, "block 1 runs mlp more than once"),
        (adds_to_itself, "block 1 does not return its input with the outputs of modules added"),
    ],
)
def test_a_block_of_another_form_is_refused_by_what_it_does(make_model, forward, why):
    model = make_model()
    model.model.layers[1].forward = MethodType(forward, model.model.layers[1])
    with pytest.raises(Unfit, match=f"a llama model cannot be pruned here: {why}"):
        prove(model)


def normalises_a_scaled_sum(block, x, **rest):
    return block.post_attention_layernorm(0.5 * x + 2 * block.mlp(x))


def normalises_behind_an_adapter(block, x, **rest):
    norm = block.post_attention_layernorm
    first = norm(x + block.mlp(x))
    return norm(first + block.input_layernorm(first).sigmoid())


def begins_with_the_norm(block, x, **rest):
    x = block.input_layernorm(x)
    return 0.5 * x + 2 * block.mlp(block.post_attention_layernorm(x))


@pytest.mark.parametrize(
    ("forward", "closing", "carry", "scale"),
    [
        (normalises_a_scaled_sum, "post_attention_layernorm", 0.5, 2.0),
        (normalises_behind_an_adapter, "post_attention_layernorm", 1.0, 1.0),
        # The norm on the sum is the one that the next block begins with, and the final norm behind the last block.
        (begins_with_the_norm, "", 0.5, 2.0),
    ],
)
def test_a_norm_on_a_sum_is_proven_with_what_is_in_the_sum_and_behind_it(make_model, forward, closing, carry, scale):
    model = make_model()
    for block in model.model.layers:
        block.forward = MethodType(forward, block)
    decoder = Decoder(model)
    for prove_one in (equations, drops):
        assert all(error <= ROUNDING[torch.float32] for error, _ in prove_one(decoder))
    for block in decoder.structure.blocks:
        (part,) = block.parts
        assert (part.closing, part.carry, part.writes[0].scale) == (closing, carry, scale)
    seen, entered = {}, []
    decoder.blocks[0].mlp.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    with torch.no_grad(), tap(decoder, lambda index, x: seen.update({index: x})):
        model(torch.arange(8)[None])
    with torch.no_grad():
        update = scale * decoder.blocks[0].mlp(entered[0])
    if forward is not begins_with_the_norm:
        assert torch.equal(seen[0], carry * entered[0])
    assert torch.allclose(seen[1] - seen[0], update, atol=1e-5)


def test_a_stream_that_is_scaled_before_anything_but_a_norm_is_refused(make_model):
    """In the last block but one: what follows it reads the stream through a norm, but goes on with the stream."""
    model = make_model()
    for block in model.model.layers[:-1]:
        block.forward = MethodType(begins_with_the_norm, block)
    with pytest.raises(Unfit, match=r"block 2 scales its residual stream by 0\.5"):
        prove(model)


def test_blocks_in_another_order_are_refused(make_model):
    model = make_model(layers=3)
    model.model.layers[2].forward = model.model.layers[0].__call__
    with pytest.raises(Unfit, match=r"run in the order \[0, 1, 2, 0\]"):
        prove(model)


def test_logits_that_are_not_linear_in_the_final_state_are_refused(make_model):
    model = make_model()
    model.lm_head.register_forward_hook(lambda module, args, output: output.sin())
    with pytest.raises(Unfit, match=r"logits = output projection of the final state does not hold"):
        prove(model)


def test_a_state_that_changes_behind_the_structure_is_refused(make_model):
    """What was found is proven anew on the model in hand: here its last block returns something else than before."""
    model = make_model()
    assert Decoder(model).structure.chained
    model.model.layers[3].register_forward_hook(lambda module, args, output: output * 1.01)
    with pytest.raises(Unfit, match=r"block 3: output = x \+ sum of scale × update does not hold \(off by"):
        prove(model)


def test_a_stream_that_changes_between_two_blocks_is_refused(make_model):
    """Blocks are scored one after the other, each on what the one before it returned."""
    model = make_model()
    block = model.model.layers[2]
    # What runs in place of a call, before any hook of the block.
    block._compiled_call_impl = lambda x, *args, **rest: block._call_impl(x + x.sin(), *args, **rest)
    with pytest.raises(Unfit, match="block 2 is not given what block 1 returns"):
        prove(model)


def test_a_pruned_model_has_the_head_of_the_dense_one(make_model):
    for decision in (Decision(blocks=(1,)), Decision(attention=(0, 2), mlp=(1, 2))):
        model = make_model()
        apply(model, decision)
        assert torch.equal(head_of(Decoder(model)).weight, make_model().get_output_embeddings().weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_block_that_takes_most_of_the_stream_back_is_no_other_model(make_model, dtype):
    """Rounding is that of the large states, which the last block's bias cancels."""
    model = make_model().to(dtype)
    first, last = model.model.layers[0].mlp.down_proj, model.model.layers[-1].mlp.down_proj
    large = torch.full((64,), 1000.0, dtype=dtype)
    first.bias, last.bias = torch.nn.Parameter(large), torch.nn.Parameter(-large)
    prove(model)


def test_it_is_found_and_proven_once_a_model(make_model):
    model, calls = make_model(), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    head_of(Decoder(model), torch.float64)
    first = len(calls)
    for _ in range(3):
        head_of(Decoder(model), torch.float64)
    assert first and len(calls) == first


def test_logits_that_are_not_finite_are_named_as_such(make_model):
    model = make_model()
    model.get_output_embeddings().weight.data.fill_(3e38)
    with pytest.raises(ValueError, match="NaN or infinity in float32.*another dtype"):
        prove(model)


@pytest.mark.parametrize("name", ["divergence", "divergence_estimate", "magnitude_divergence"])
def test_pruners_that_compare_refuse_a_head_of_another_form(make_model, name):
    model, pruner = make_model(), pruner_of(name)
    context = context_for(pruner, model)
    model.lm_head.register_forward_hook(lambda module, args, output: output.sin())
    with pytest.raises(ValueError, match="output projection of the final state does not hold"):
        pruner.decide(Decoder(model), parse(0.5), context)


def test_a_job_refuses_it_when_the_model_is_loaded(make_model, make_settings, tmp_path, monkeypatch):
    def load(self: RandomModel, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        model = tiny("llama")
        model.model.layers[1].forward = MethodType(halves_its_stream, model.model.layers[1])
        return model

    settings = make_settings("pruner=shortgpt", "sparsity=1")
    monkeypatch.setattr(RandomModel, "load", load)
    for use in (decision_of, head_and_norm):
        with pytest.raises(ValueError, match="block 1 scales its residual stream by 0.5"):
            use(Workbench(settings, Store(tmp_path)))
