"""Log-likelihoods against plain transformers: one sequence at a time, no padding and no cache."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from alone import (
    POSITIONS,
    ROUNDING,
    SWITCH,
    VARIANTS,
    WRITERS,
    Pair,
    harness,
    kept,
    logits_of,
    pairs,
    reference,
    rows,
    scored,
    variant,
    words,
)
from choice import some
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from pipeline.evaluate.likelihoods import log_likelihoods
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply


@pytest.mark.parametrize("name", [*WRITERS, *VARIANTS])
def test_log_likelihoods_are_those_of_each_sequence_alone(name, tokenizer):
    model, asked = kept(name), pairs(1)
    expected = [reference(model, context or [tokenizer.eos_token_id], rest) for context, rest in asked]
    for batch_size in (1, 2, 7):
        found = scored(model, tokenizer, asked, batch_size)
        for (value, greedy), (exact, likeliest), (context, rest) in zip(found, expected, asked, strict=True):
            where = f"{len(context)} + {len(rest)} tokens, batch size {batch_size}"
            assert value == pytest.approx(exact, abs=ROUNDING.get(name, 1e-9)), where
            assert greedy == likeliest, where


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "phi3 longrope"])
def test_in_float32_they_are_right_to_its_rounding(name, tokenizer):
    model = variant(name).float()
    asked = pairs(2)
    found = scored(model, tokenizer, asked, 7)
    for (value, _), (context, rest) in zip(found, asked, strict=True):
        exact, _ = reference(kept(name), context or [tokenizer.eos_token_id], rest)
        assert value == pytest.approx(exact, abs=2e-5 * max(1, len(rest)))


@pytest.mark.parametrize(
    "decision", [Decision(attention=(0,)), Decision(attention=(0, 1)), Decision(mlp=(1,)), Decision(blocks=(0,))]
)
@pytest.mark.parametrize("name", ["llama", "gemma3_text longrope"])
def test_so_are_those_of_models_with_parts_gone(name, decision, tokenizer):
    model, asked = variant(name), pairs(3)
    apply(model, decision)
    for (value, _), (context, rest) in zip(scored(model, tokenizer, asked, 3), asked, strict=True):
        exact, _ = reference(model, context or [tokenizer.eos_token_id], rest)
        assert value == pytest.approx(exact, abs=1e-9)


def test_a_token_that_is_the_likeliest_is_said_to_be(tokenizer):
    model = kept("phi3 longrope")
    context = tokenizer(words(SWITCH - 9)).input_ids
    best: list[int] = []
    while len(best) < 5:
        best.append(int(logits_of(model, context + best)[-1].argmax()))
    other = [*best[:-1], (best[-1] + 1) % 250]
    assert [greedy for _, greedy in scored(model, tokenizer, [(context, best), (context, other)], 2)] == [True, False]


@pytest.mark.parametrize("length", [POSITIONS - 5, POSITIONS, POSITIONS + 20])
@pytest.mark.parametrize("answer", ["a", "four", "x" * POSITIONS])
def test_what_is_too_long_is_cut_as_the_harness_does(tokenizer, length, answer):
    model = kept("gpt2")
    asked = [Instance("loglikelihood", {}, ("b" * length, answer), 0)]
    ours = harness(model, tokenizer, 2).loglikelihood(asked)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).loglikelihood(asked, disable_tqdm=True)
    assert ours[0] == (pytest.approx(theirs[0][0], abs=1e-9), theirs[0][1])


def test_an_answer_that_is_longer_than_the_positions_is_refused(tokenizer):
    """The harness refuses it too, with an assertion."""
    asked = [Instance("loglikelihood", {}, ("b", "x" * (POSITIONS + 1)), 0)]
    model = kept("llama")
    with pytest.raises(ValueError, match=f"answer of {POSITIONS + 1} tokens, but the model has {POSITIONS} positions"):
        harness(model, tokenizer, 2).loglikelihood(asked)
    with pytest.raises(AssertionError):
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).loglikelihood(asked, disable_tqdm=True)


def test_an_answer_of_nothing_is_certain(tokenizer):
    asked = [Instance("loglikelihood", {}, request, 0) for request in (("b", ""), ("", ""), ("b", "c"))]
    found = harness(kept("llama"), tokenizer, 2).loglikelihood(asked)
    assert found[:2] == [(0.0, True)] * 2 and found[2][0] < 0


def test_an_answer_without_a_token_of_its_own_is_refused(tokenizer, monkeypatch):
    lm = harness(kept("llama"), tokenizer, 2)
    monkeypatch.setattr(lm, "tok_encode", lambda string, *_, **__: [7] * (len(string) // 2))
    with pytest.raises(ValueError, match="the answer 'c' adds no token of its own after 'ab'"):
        lm.loglikelihood([Instance("loglikelihood", {}, ("ab", "c"), 0)])


def test_contexts_of_spaces_or_nothing_begin_with_the_prefix(tokenizer):
    model, end = kept("qwen2"), tokenizer.eos_token_id
    asked = [Instance("loglikelihood", {}, request, 0) for request in (("", "ab"), (" ", "ab"), ("", "<|end|>ab"))]
    found = harness(model, tokenizer, 2).loglikelihood(asked)
    ids = tokenizer("ab").input_ids
    for (value, _), rest in zip(found, (ids, tokenizer(" ab").input_ids, ids), strict=True):
        assert value == pytest.approx(reference(model, [end], rest)[0], abs=1e-9)


def distinct(asked: Sequence[Pair]) -> int:
    """Distinct beginnings of contexts with their continuations, but the last token, which is predicted only."""
    runs = [(*context, *rest[:-1]) for context, rest in asked]
    return len({run[:end] for run in runs for end in range(1, len(run) + 1)})


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3_moe"])
def test_every_beginning_goes_through_the_model_once(name):
    """Examples, contexts and options, as in a suite of two tasks; few enough tokens for one row."""
    model = kept(name)
    asked = [
        ([*task, context], [*option, 9])
        for task in ([1], [5])
        for context in (3, 4)
        for option in ([], [7], [7, 8], [6])
    ]
    expected = [reference(model, *pair)[0] for pair in asked]
    # Which way a model may go is tried once.
    log_likelihoods(model, asked[:1], 8)
    with rows(model) as seen:
        found = log_likelihoods(model, asked, 8)
    assert [value for value, _ in found] == pytest.approx(expected, abs=1e-9)
    assert sum(count * width for count, width in seen) == distinct(asked)


def test_a_long_beginning_is_a_cache():
    model = variant("llama")
    examples = list(range(100, 140))
    asked = [([*examples, number], [*option, 9]) for number in range(60) for option in ([], [number], [7])]
    expected = [reference(model, *pair)[0] for pair in asked]
    log_likelihoods(model, asked[:1], 2)
    with rows(model) as seen:
        found = log_likelihoods(model, asked, 2)
    assert [value for value, _ in found] == pytest.approx(expected, abs=1e-9)
    assert seen[0] == (1, 40) and sum(count * width for count, width in seen) <= 1.15 * distinct(asked)


@pytest.mark.parametrize("name", ["llama", "phi3 longrope", "gemma3_text", "gpt2"])
def test_no_pass_has_more_tokens_than_the_batch_size_times_the_longest(name, tokenizer):
    """Pairs with an empty context, as in BLiMP, and of all lengths."""
    model = kept(name)
    sentences = [tokenizer(f"sentence {number} of many").input_ids for number in range(30)]
    blimp = [([tokenizer.eos_token_id], sentence) for sentence in sentences]
    for asked, size in ((blimp, 4), (pairs(4), 3)):
        longest = max(min(len(context) + len(rest) - 1, POSITIONS) for context, rest in asked if rest)
        scored(model, tokenizer, asked[:1], size)
        with rows(model) as seen:
            found = scored(model, tokenizer, asked, size)
        assert max(count * width for count, width in seen) <= size * longest
        for (context, rest), (value, _) in zip(asked, found, strict=True):
            exact, _ = reference(model, context or [tokenizer.eos_token_id], rest)
            assert value == pytest.approx(exact, abs=1e-9)


# Tokens from few kinds, so that many sequences begin alike and options are beginnings of each other.
TREES = st.lists(
    st.tuples(st.lists(st.integers(1, 3), max_size=9), st.lists(st.integers(1, 3), min_size=1, max_size=POSITIONS)),
    min_size=1,
    max_size=25,
)
# Attention of every kind: full, windows, linear mixers, convolutions, switching factors, positions by addition.
KINDS = some(
    "trees of requests", ("llama", "gemma2", "gpt2", "phi3 longrope", "llama dynamic", "mixtral", "gemma3_text", "opt")
)


@pytest.mark.parametrize("name", KINDS)
@given(asked=TREES, size=st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_any_tree_of_requests_gives_what_each_one_alone_does(name, asked, size):
    model = kept(name)
    asked = [(context or [256], rest) for context, rest in asked]
    asked = [(context[-(POSITIONS + 1 - len(rest)) :], rest) for context, rest in asked]
    found = log_likelihoods(model, asked, size)
    for (value, greedy), pair in zip(found, asked, strict=True):
        exact, likeliest = reference(model, *pair)
        assert value == pytest.approx(exact, abs=ROUNDING.get(name, 1e-9))
        assert greedy == likeliest
