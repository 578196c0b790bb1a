"""A model whose configuration scales what the views do not know is refused; every supported one is proven right."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers import context_for, pruner_of
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pipeline.config.sparsity import parse
from pipeline.measure.stage import head_and_norm
from pipeline.model.architectures import _LLAMA, ARCHITECTURES, Architecture, Part
from pipeline.model.decoder import Decoder
from pipeline.model.head_proof import head_of, prove
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
COHERE = Architecture(
    attention=Part(("self_attn",), ("self_attn.o_proj",), norm="input_layernorm"),
    mlp=Part(("mlp",), ("mlp.down_proj",), norm="input_layernorm"),
    parallel=True,
)
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.fixture
def tiny(monkeypatch):
    """``tiny("granite", logits_scaling=8)`` gives a tiny model, entered as if it were like Llama or Phi."""
    monkeypatch.setitem(ARCHITECTURES, "granite", _LLAMA)
    monkeypatch.setitem(ARCHITECTURES, "cohere", COHERE)

    def make(kind: str, dtype: torch.dtype = torch.float32, **fields: object) -> PreTrainedModel:
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **deepcopy(SIZES | fields))
        return AutoModelForCausalLM.from_config(config).to(dtype).eval()

    return make


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        ("granite", {"logits_scaling": 8.0}, "off by 700.0%.*config.json sets logits_scaling=8.0"),
        ("granite", {"residual_multiplier": 0.22}, "block 0's sublayers .*sets residual_multiplier=0.22"),
        ("cohere", {"logit_scale": 0.0625}, "config.json sets logit_scale=0.0625"),
        ("llama", {"final_logit_softcapping": 3.0}, "config.json sets final_logit_softcapping=3.0"),
    ],
)
def test_scales_that_the_views_do_not_know_are_refused_by_name(tiny, kind, fields, named, dtype):
    for subject in (lambda model: head_of(Decoder(model)), prove):
        with pytest.raises(ValueError, match=named) as caught:
            subject(tiny(kind, dtype, **fields))
        assert "\n" not in str(caught.value) and f"this {kind} model" in str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("granite", {"embedding_multiplier": 12.0, "attention_multiplier": 0.015}),
        ("granite", {"logits_scaling": 1.0}),
        ("cohere", {"logit_scale": 1.0}),
        ("gemma2", {"final_logit_softcapping": 3.0, "head_dim": 8}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
    ],
)
def test_what_the_views_know_or_need_not_know_passes(tiny, kind, fields, dtype):
    """And the logits of the head are the model's own, by the model's own forward pass."""
    model = tiny(kind, dtype, **fields)
    assert_own_logits(model, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_supported_architecture_is_proven(architecture, dtype, tmp_path):
    if ARCHITECTURES[architecture].encoder:
        pytest.skip("has no logits")
    if dtype == torch.float64 and architecture in ("mixtral", "qwen2_moe", "qwen3_moe"):
        pytest.skip("its experts do not compute in float64")
    model = RandomModel(name="random", architecture=architecture).load(dtype, Store(tmp_path))
    assert_own_logits(model, dtype)


@torch.inference_mode()
def assert_own_logits(model: PreTrainedModel, dtype: torch.dtype) -> None:
    ids = torch.randint(0, 250, (1, 20), generator=torch.Generator().manual_seed(1))
    states = Decoder(model).base(ids, use_cache=False).last_hidden_state[0]
    found, expected = head_of(Decoder(model)).logits(states), model(ids).logits[0]
    near = {torch.float32: 1e-5, torch.float64: 1e-10, torch.bfloat16: 0.02}[dtype] * float(expected.abs().max())
    assert float((found - expected).abs().max()) <= near


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


def test_it_is_proven_once_a_model(make_model, monkeypatch):
    model, calls = make_model(), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    for _ in range(3):
        head_of(Decoder(model), torch.float64)
    assert len(calls) == 1


def test_logits_that_are_not_finite_are_named_as_such(make_model):
    model = make_model()
    model.get_output_embeddings().weight.data.fill_(3e38)
    with pytest.raises(ValueError, match="NaN or infinity in float32.*another dtype"):
        prove(model)


@pytest.mark.parametrize("name", ["divergence", "divergence_estimate", "magnitude_divergence"])
def test_pruners_that_compare_refuse_it(tiny, name):
    model, pruner = tiny("granite", logits_scaling=8.0), pruner_of(name)
    with pytest.raises(ValueError, match="logits_scaling=8.0"):
        pruner.decide(Decoder(model), parse(0.5), context_for(pruner, model))


def test_a_job_refuses_it_when_the_model_is_loaded(tiny, make_settings, tmp_path, monkeypatch):
    settings = make_settings("pruner=shortgpt", "sparsity=1")
    monkeypatch.setattr(RandomModel, "load", lambda self, dtype, store: tiny("granite", dtype, logits_scaling=8.0))
    with pytest.raises(ValueError, match="logits_scaling=8.0"):
        decision_of(Workbench(settings, Store(tmp_path)))
    with pytest.raises(ValueError, match="logits_scaling=8.0"):
        head_and_norm(Workbench(settings, Store(tmp_path)))
