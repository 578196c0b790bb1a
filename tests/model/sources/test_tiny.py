"""Tiny random models of every type of causal model that transformers knows."""

from __future__ import annotations

import pytest
import torch
from choice import some

from pipeline.model.sources.tiny import FAILED, KINDS, OK, OTHER, TOKENS, tiny_config, tiny_model, trial

# Their masks overflow in float64: transformers computes the softmax in float32.
NO_DOUBLE = ("blt", "xglm")
IDS = torch.arange(TOKENS)[None] * 7 % 250


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.double()


@pytest.mark.parametrize("kind", some("types of tiny models", KINDS, always=["granitemoehybrid"]))
def test_a_tiny_model_of_any_type_is_a_text_decoder_or_says_why_not(kind):
    found = trial(kind)
    assert found.status != FAILED, found.reason
    assert (found.status == OTHER) == bool(found.reason)
    if found.status == OTHER:
        return
    first, other = tiny_model(kind), tiny_model(kind, seed=1)
    assert torch.equal(logits(first), logits(tiny_model(kind)))
    assert not torch.allclose(logits(first), logits(other))
    assert first.config.get_text_config().vocab_size == 258
    for name, parameter in first.named_parameters():
        assert parameter.isfinite().all() and not ((parameter == 0) | (parameter == 1)).any(), name
    if kind not in NO_DOUBLE:
        exact = logits(tiny_model(kind, dtype=torch.float64))
        assert (exact - logits(first)).abs().max() < 1e-3 * exact.std()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("gemma3", "it holds the text type gemma3_text"),
        ("musicgen", "codebooks"),
        ("gemma4_unified_assistant", "shared_kv_states"),
        ("cpmant", "later tokens"),
    ],
)
def test_types_that_are_no_text_decoders_are_found_by_trying(kind, why):
    found = trial(kind)
    assert found.status == OTHER and why in found.reason


@pytest.mark.parametrize(
    ("kind", "field", "kinds"),
    [
        ("gemma2", "layer_types", {"sliding_attention", "full_attention"}),
        ("axk1", "mlp_layer_types", {"dense", "sparse"}),
        ("jamba", "layers_block_type", {"mamba", "attention"}),
        ("gpt_neo", "attention_layers", {"global", "local"}),
    ],
)
def test_every_kind_of_block_of_the_default_occurs_in_few_blocks(kind, field, kinds):
    config = tiny_config(kind)
    assert set(getattr(config, field)) == kinds and config.num_hidden_layers <= 5


def test_shared_keys_and_values_occur_in_a_tiny_model_of_a_type_that_shares_them_by_default():
    config = tiny_config("gemma3n_text")
    assert 0 < config.num_kv_shared_layers < config.num_hidden_layers


def test_multipliers_and_caps_differ_from_no_multiplier_and_no_cap():
    granite, gemma = tiny_config("granite"), tiny_config("gemma2")
    scales = [granite.embedding_multiplier, granite.residual_multiplier, granite.logits_scaling]
    assert all(abs(scale - 1) > 0.1 for scale in scales)
    assert max(gemma.final_logit_softcapping, gemma.attn_logit_softcapping) < 8
    assert gemma.query_pre_attn_scalar != gemma.head_dim


def test_windows_are_shorter_than_the_tokens_of_a_trial():
    assert tiny_config("mistral").sliding_window < TOKENS


def test_the_size_is_chosen():
    config = tiny_config("llama", layers=3, hidden=64, heads=8, vocabulary=300)
    sizes = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.vocab_size)
    assert sizes == (3, 64, 8, 300)
    assert trial("llama").status == OK
