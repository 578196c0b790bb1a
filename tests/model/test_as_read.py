"""Text is continued as it is read: the states that are captured are those that choose the generated tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from pipeline.config.probes import PROBES
from pipeline.evaluate.likelihoods import log_likelihoods
from pipeline.model.as_read import alike, as_read, rounding_level
from pipeline.model.decoder import Decoder
from pipeline.model.generation import Decoding, generate
from pipeline.model.proof import head_of, prove
from pipeline.model.sources.tiny import model_of, tiny_config, tiny_model
from pipeline.model.trajectory import capture_trajectory

STEPS = 5
# Positions that begin behind the padding token; a token that the class adds; positions that padding shifts; attention
# to the few tokens of the highest scores; queries scaled by a place that counts padding, too; none of it.
TYPES = ("roberta", "xlm", "roformer", "deepseek_v32", "llama4_text", "llama")


@torch.inference_mode()
def read(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """Logits (T, V) of one text alone, by a plain forward pass."""
    return model(torch.tensor([tokens]), use_cache=False).logits[0]


@pytest.mark.parametrize("kind", TYPES)
def test_captured_states_choose_the_generated_tokens(kind, tokenizer):
    model = tiny_model(kind)
    found = capture_trajectory(model, tokenizer, PROBES[3:6], STEPS, residual=False)
    assert len({len(prompt) for prompt in found.prompts}) > 1
    logits = head_of(Decoder(model)).logits(found.final)
    texts = list(zip(found.prompts, found.tokens, strict=True))
    own = torch.cat([read(model, prompt + row)[len(prompt) - 1 : -1] for prompt, row in texts])
    assert (logits - own).abs().max() <= 1e-4 * own.abs().max()
    assert logits.argmax(-1).tolist() == [token for row in found.tokens for token in row]


@pytest.mark.parametrize("kind", TYPES)
def test_answers_are_scored_as_they_are_read(kind):
    model = tiny_model(kind)
    prove(model)
    pairs = [([5, 6, 7, 8], [9, 10]), ([5, 6, 7, 8], [11]), ([12, 13], [14, 15, 16]), ([*range(20, 50)], [17, 18])]
    for (context, answer), (value, _) in zip(pairs, log_likelihoods(model, pairs, 4), strict=True):
        rows = read(model, context + answer).log_softmax(-1)[len(context) - 1 : -1]
        assert value == pytest.approx(float(rows.gather(1, torch.tensor(answer)[:, None]).sum()), abs=1e-4)


def test_logits_that_a_class_computes_unasked_are_not_taken_for_those_of_the_answer():
    """xLSTM computes the logits of all tokens, whatever it is asked for."""
    model = tiny_model("xlstm")
    prove(model)
    ((value, _),) = log_likelihoods(model, [([5, 6, 7, 8], [9, 10])], 4)
    rows = read(model, [5, 6, 7, 8, 9, 10]).log_softmax(-1)[3:-1]
    assert value == pytest.approx(float(rows[0, 9] + rows[1, 10]), abs=1e-4)


def test_states_that_change_with_what_follows_are_not_captured(tokenizer):
    """Where a token's prediction depends on how many others follow, no pass over the whole text has made the choice."""
    model = tiny_model("prophetnet")
    with pytest.raises(ValueError, match="prophetnet model predicts a token differently once others follow"):
        capture_trajectory(model, tokenizer, PROBES[:1], STEPS, residual=False)


def test_a_choice_of_tokens_among_equal_scores_is_seen_on_a_longer_text(tokenizer):
    """With two heads, many scores are exactly zero: which of these tokens are attended to depends on their number."""
    config = tiny_config("deepseek_v32")
    config.index_n_heads = 2
    model = model_of(config)
    assert not as_read(model).alone and as_read(tiny_model("deepseek_v32")).batched
    with pytest.raises(ValueError, match="deepseek_v32 model predicts a token differently once others follow"):
        capture_trajectory(model, tokenizer, PROBES[:1], STEPS, residual=False)


def test_positions_up_to_the_one_of_padding_are_not_for_tokens(tokenizer):
    model = tiny_model("roberta")
    most = Decoder(model).positions
    assert most == model.config.max_position_embeddings - model.config.pad_token_id - 1
    assert len(read(model, [5] * most)) == most
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        read(model, [5] * (most + 1))
    with pytest.raises(ValueError, match=f"{most + 1} tokens, but the model has {most} positions"):
        generate(model, tokenizer, [[5] * most], [1], Decoding())


def test_in_half_precision_most_tokens_have_to_agree_whatever_dtype_the_library_gives():
    expected = torch.eye(5)
    found = expected.clone()
    found[0, 1] = 0.5
    assert not alike(found, expected)
    assert alike(found, expected.bfloat16()) and alike(found.bfloat16(), expected.bfloat16())
    found[:3, 4] = 0.5
    assert not alike(found, expected.bfloat16())


def test_what_rounding_may_do_to_a_model_is_measured(make_model):
    model = make_model("llama", 2)
    assert 1e-8 < rounding_level(model) < 1e-5
    assert rounding_level(make_model("llama", 2).double()) < 1e-14
    assert rounding_level(make_model("llama", 2).bfloat16()) == 0
    expected = torch.eye(5)
    assert not alike(expected * 1.001, expected, 1e-5) and alike(expected * 1.001, expected, 2e-4)
