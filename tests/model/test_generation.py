"""Continuations of prompts, and the text that each token adds."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import ENCODERS
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.probes import PROBES, encode
from pipeline.model.generation import GREEDY, SAMPLE, Decoding, generate, pieces
from pipeline.model.trajectory import capture_trajectory

STEPS = 6


@pytest.fixture
def prompts(tokenizer) -> list[list[int]]:
    """Three of different lengths."""
    return [encode(probe, tokenizer) for probe in PROBES[3:12:3]]


@pytest.fixture
def model(make_model):
    """With logits so far apart that a cold enough sample is the likeliest token."""
    made = make_model()
    made.lm_head.weight.data *= 200
    return made


@torch.inference_mode()
def likeliest(model: torch.nn.Module, prompt: list[int], steps: int, end: int) -> list[int]:
    """By a whole forward pass for every token."""
    row: list[int] = []
    while len(row) < steps and end not in row:
        row.append(int(model(torch.tensor([prompt + row]), use_cache=False).logits[0, -1].argmax()))
    return row


def test_greedy_is_the_argmax_of_full_passes(make_model, tokenizer, prompts, architecture):
    if architecture in ENCODERS:
        pytest.skip("writes no text")
    model = make_model(architecture)
    found = generate(model, tokenizer, prompts, [STEPS] * 3, Decoding())
    assert found == [likeliest(model, prompt, STEPS, tokenizer.eos_token_id) for prompt in prompts]


def test_settings_that_come_with_a_model_do_not_change_what_greedy_means(model, tokenizer, prompts):
    free = generate(model, tokenizer, prompts, [STEPS] * 3, Decoding())
    model.generation_config.update(
        do_sample=True, temperature=0.2, top_k=3, top_p=0.5, repetition_penalty=5.0, max_new_tokens=2
    )
    assert generate(model, tokenizer, prompts, [STEPS] * 3, Decoding()) == free


def test_each_prompt_has_its_own_length(model, tokenizer, prompts):
    whole = generate(model, tokenizer, prompts, [STEPS] * 3, Decoding())
    lengths = [4, 1, STEPS]
    assert generate(model, tokenizer, prompts, lengths, Decoding()) == [
        row[:length] for row, length in zip(whole, lengths, strict=True)
    ]


@pytest.mark.parametrize("several", [False, True])
def test_end_of_text_is_the_last_token(model, tokenizer, prompts, several):
    free = generate(model, tokenizer, prompts, [STEPS] * 3, Decoding())
    end = free[0][2]
    model.generation_config.eos_token_id = [end, 99999] if several else end
    stopped = generate(model, tokenizer, prompts, [STEPS] * 3, Decoding())
    assert stopped == [row[: row.index(end) + 1] if end in row else row for row in free]
    assert len(stopped[0]) <= 3


def test_the_tokenizers_end_of_text_counts_too(model, tokenizer, prompts):
    free = generate(model, tokenizer, prompts, [STEPS] * 3, Decoding())
    other = copy.deepcopy(tokenizer)
    other.eos_token = tokenizer.convert_ids_to_tokens(free[1][0])
    stopped = generate(model, other, prompts, [STEPS] * 3, Decoding())
    assert stopped[1] == free[1][:1]


def test_sampling_is_repeated_by_its_seed_alone(make_model, tokenizer, prompts):
    def sample(seed: int, temperature: float = 1.0) -> list[list[int]]:
        decoding = Decoding(SAMPLE, temperature, seed)
        return generate(make_model(), tokenizer, prompts, [STEPS] * 3, decoding)

    one = sample(1)
    torch.manual_seed(123)
    assert sample(1) == one
    assert sample(2) != one
    assert sample(1, temperature=0.1) != one


@pytest.mark.parametrize("kind", [GREEDY, SAMPLE])
def test_the_callers_random_state_is_left_alone(model, tokenizer, prompts, kind):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    generate(model, tokenizer, prompts, [STEPS] * 3, Decoding(kind, 1.0, 9))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_cold_sample_is_greedy(model, tokenizer, prompts):
    greedy = generate(model, tokenizer, prompts, [STEPS] * 3, Decoding())
    assert generate(model, tokenizer, prompts, [STEPS] * 3, Decoding(SAMPLE, 0.01, 3)) == greedy
    assert generate(model, tokenizer, prompts, [STEPS] * 3, Decoding(SAMPLE, 20.0, 3)) != greedy


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_are_drawn_from_the_whole_softmax_at_their_temperature(make_model, tokenizer, temperature):
    model, prompt, draws = make_model(), [60, 61], 3000
    model.lm_head.weight.data *= 4
    # What a model's own settings would leave of the vocabulary.
    model.generation_config.update(top_k=5, top_p=0.3, temperature=0.1)
    decoding = Decoding(SAMPLE, temperature, 4)
    drawn = torch.tensor(generate(model, tokenizer, [prompt] * draws, [1] * draws, decoding)).flatten()
    with torch.inference_mode():
        p = torch.softmax(model(torch.tensor([prompt])).logits[0, -1].double() / temperature, -1)
    surprise = -p.log()
    mean, deviation = float(p @ surprise), float((p @ surprise.square() - (p @ surprise) ** 2).sqrt())
    assert float(surprise[drawn].mean()) == pytest.approx(mean, abs=4 * deviation / draws**0.5)
    common = (p * draws > 15).nonzero().flatten().tolist()
    assert len(common) > 5  # top_k
    assert set(common) <= set(drawn.tolist())


def test_equal_models_sample_equal_trajectories(make_model, tokenizer):
    decoding = Decoding(SAMPLE, 1.0, 7)
    one, other = (
        capture_trajectory(make_model(), tokenizer, PROBES[::4], STEPS, residual=False, decoding=decoding)
        for _ in range(2)
    )
    assert one.tokens == other.tokens
    assert torch.equal(one.final, other.final)
    greedy = capture_trajectory(make_model(), tokenizer, PROBES[::4], STEPS, residual=False)
    assert greedy.tokens != one.tokens


@settings(deadline=None)
@given(st.text(max_size=30))
def test_pieces_of_a_text_are_the_text(tokenizer, text):
    tokens = tokenizer(text).input_ids
    found = pieces(tokens, tokenizer)
    assert len(found) == len(tokens) == len(text.encode())
    assert "".join(found) == text


@settings(deadline=None)
@given(st.lists(st.integers(0, 257), max_size=20))
def test_pieces_of_any_tokens_are_what_they_decode_to(tokenizer, tokens):
    """Also of bytes that are no text, and cut in the middle of a character."""
    assert "".join(pieces(tokens, tokenizer)) == tokenizer.decode(tokens)


def test_a_character_of_several_tokens_comes_with_the_last(tokenizer):
    assert pieces(tokenizer("né🙂!").input_ids, tokenizer) == ["n", "", "é", "", "", "", "🙂", "!"]
    assert pieces(tokenizer("a🙂").input_ids[:-1], tokenizer) == ["a", "", "", "\ufffd"]
