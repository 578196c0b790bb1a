"""Log-likelihoods and greedy texts against plain transformers: one sequence at a time, no padding and no cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from cases import ENCODERS, USUAL
from choice import some
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.capture.options import Question, decision_states
from pipeline.config.probes import Probe
from pipeline.evaluate.language_model import InMemoryLM
from pipeline.evaluate.likelihoods import log_likelihoods
from pipeline.evaluate.retrieval.embed import Embedder
from pipeline.evaluate.retrieval.recipe import Recipe
from pipeline.model.decoder import Decoder
from pipeline.model.generation import Decoding
from pipeline.model.generation import generate as continued
from pipeline.model.positions import Positions
from pipeline.model.sources.random import RandomModel
from pipeline.model.trajectory import capture_forced, capture_trajectory, forwards
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply

WRITERS = [name for name in USUAL if name not in ENCODERS]
# Rotary variants whose factors depend on how long a sequence is: those that switch at SWITCH tokens, and dynamic ones.
SWITCH = 24
VARIANTS = ("phi3 longrope", "llama longrope", "gemma3_text longrope", "llama dynamic")
# Gemma 2 takes the softmax of its attention in float32 in any dtype.
ROUNDING = {"gemma2": 1e-6}
POSITIONS = 48
Pair = tuple[list[int], list[int]]


def variant(name: str) -> torch.nn.Module:
    """A tiny model with few positions, float64, seeded: of ``WRITERS`` or ``VARIANTS``."""
    architecture, _, kind = name.partition(" ")
    source = RandomModel("random", architecture=architecture, layers=2, hidden=32)
    shape = source._shape() | {"max_position_embeddings": POSITIONS, "vocab_size": 258, "pad_token_id": 257}
    shape |= {"eos_token_id": 256, "bos_token_id": None}
    if kind:
        factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [3.0, 4.0, 5.0, 6.0]}
        longrope = factors | {"rope_type": "longrope", "original_max_position_embeddings": SWITCH, "factor": 2.0}
        rope: dict[str, Any] = longrope if kind == "longrope" else {"rope_type": "dynamic", "factor": 4.0}
        rope["rope_theta"] = 10000.0
        if architecture == "gemma3_text":
            plain = {"rope_type": "default", "rope_theta": 10000.0}
            shape["rope_parameters"] = {"full_attention": rope, "sliding_attention": plain}
        else:
            shape["rope_parameters"] = rope
        if architecture == "phi3":
            shape["original_max_position_embeddings"] = SWITCH
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **shape))
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    if getattr(model.config, "_experts_implementation", None):
        # The grouped product of all experts takes no float64.
        model.config._experts_implementation = "eager"
    return model.eval()


@cache
def kept(name: str) -> torch.nn.Module:
    return variant(name)


@torch.inference_mode()
def logits_of(model: torch.nn.Module, tokens: Sequence[int]) -> torch.Tensor:
    """Of one sequence (T, V), alone. A short pass before it takes back what a dynamic variant grew to."""
    model(torch.tensor([[1]]), use_cache=False)
    return model(torch.tensor([list(tokens)]), use_cache=False).logits[0]


def reference(model: torch.nn.Module, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """What the continuation has by definition; the harness's cut of a context that is too long."""
    if not continuation:
        return 0.0, True
    fed = (context + continuation)[-(POSITIONS + 1) :][:-1]
    logits = logits_of(model, fed)[-len(continuation) :]
    target = torch.tensor(continuation)
    logp = torch.log_softmax(logits, -1).gather(1, target[:, None])
    return float(logp.sum()), bool((logits.argmax(-1) == target).all())


def pairs(seed: int) -> list[Pair]:
    """Contexts that share continuations and not, from one token to the last position, around the switch and beyond."""
    generator = torch.Generator().manual_seed(seed)

    def text(length: int) -> list[int]:
        return torch.randint(0, 250, (length,), generator=generator).tolist()

    lengths = [1, 7, SWITCH - 1, SWITCH, SWITCH + 1, POSITIONS - 2, POSITIONS, POSITIONS + 9]
    found: list[Pair] = []
    for length in lengths:
        context = text(length)
        found += [(context, text(count)) for count in (1, 1, 3, 5)]
    found += [(text(3), text(POSITIONS)), (text(2), text(POSITIONS - 5)), (text(4), []), ([], text(3)), ([], text(2))]
    return [found[place] for place in torch.randperm(len(found), generator=generator)]


def words(length: int) -> str:
    """A text of so many tokens; of equal tokens a state would be the same at any position."""
    return ("The quick brown fox jumps over the lazy dog, " * 3)[length % 7 :][:length]


def harness(model: torch.nn.Module, tokenizer: Any, batch_size: int) -> InMemoryLM:
    return InMemoryLM(model, tokenizer, batch_size)


def scored(model: torch.nn.Module, tokenizer: Any, asked: list[Pair], batch_size: int) -> list[tuple[float, bool]]:
    """Through the harness's own cut; its prefix stands for an empty context."""
    filled = [(None, context or [tokenizer.eos_token_id], rest) for context, rest in asked]
    return harness(model, tokenizer, batch_size)._loglikelihood_tokens(filled)


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


@contextmanager
def rows(model: torch.nn.Module) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens of every forward pass."""
    seen: list[tuple[int, int]] = []
    hook = Decoder(model).base.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple((args[0] if args else kwargs["input_ids"]).shape)),
        with_kwargs=True,
    )
    try:
        yield seen
    finally:
        hook.remove()


def distinct(asked: Sequence[Pair]) -> int:
    """Distinct beginnings of contexts with their continuations, but the last token, which is predicted only."""
    runs = [(*context, *rest[:-1]) for context, rest in asked]
    return len({run[:end] for run in runs for end in range(1, len(run) + 1)})


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3_moe"])
def test_every_beginning_goes_through_the_model_once(name, tokenizer):
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
    scored(model, tokenizer, asked[:1], 8)
    with rows(model) as seen:
        found = scored(model, tokenizer, asked, 8)
    assert [value for value, _ in found] == pytest.approx(expected, abs=1e-9)
    assert sum(count * width for count, width in seen) == distinct(asked)


def test_a_long_beginning_is_a_cache(tokenizer):
    model = variant("llama")
    examples = list(range(100, 140))
    asked = [([*examples, number], [*option, 9]) for number in range(60) for option in ([], [number], [7])]
    expected = [reference(model, *pair)[0] for pair in asked]
    scored(model, tokenizer, asked[:1], 2)
    with rows(model) as seen:
        found = scored(model, tokenizer, asked, 2)
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


# --- generation ------------------------------------------------------------------------------------------------------


def likeliest(model: torch.nn.Module, prompt: Sequence[int], steps: int, ends: Sequence[int]) -> list[int]:
    """By a whole forward pass for every token."""
    row: list[int] = []
    while len(row) < steps and not (row and row[-1] in ends):
        row.append(int(logits_of(model, [*prompt, *row])[-1].argmax()))
    return row


@pytest.mark.parametrize("name", [*WRITERS, *VARIANTS])
def test_greedy_text_is_that_of_each_prompt_alone(name, tokenizer):
    model, steps = kept(name), 6
    lengths = (0, SWITCH - 3, SWITCH - 6, SWITCH + 4, POSITIONS + 9)
    texts = [words(length) for length in lengths]
    asked = [Instance("generate_until", {}, (text, {"until": ["\n"], "max_gen_toks": steps}), 0) for text in texts]
    end = tokenizer.eos_token_id
    expected = []
    for text in texts:
        prompt = (tokenizer(text).input_ids or [end])[-(POSITIONS - steps) :]
        written = tokenizer.decode(likeliest(model, prompt, steps, [end]), skip_special_tokens=True)
        expected.append(written.split("\n")[0])
    for batch_size in (1, 3):
        assert harness(model, tokenizer, batch_size).generate_until(asked, disable_tqdm=True) == expected


def test_no_room_for_a_prompt_is_said(tokenizer):
    asked = [Instance("generate_until", {}, ("a", {"max_gen_toks": POSITIONS}), 0, ("talk", 0, 1))]
    with pytest.raises(ValueError, match=f"task talk generates up to {POSITIONS} tokens"):
        harness(kept("llama"), tokenizer, 2).generate_until(asked, disable_tqdm=True)


def test_each_prompt_of_a_capture_is_continued_as_alone(tokenizer):
    for name in ("gpt2", *VARIANTS):
        model, end = kept(name), tokenizer.eos_token_id
        prompts = [tokenizer(words(length)).input_ids for length in (SWITCH - 2, SWITCH - 9, POSITIONS - 2, SWITCH + 3)]
        lengths = [6, 9, 2, 3]
        found = continued(model, tokenizer, prompts, lengths, Decoding())
        assert found == [likeliest(model, *asked, [end]) for asked in zip(prompts, lengths, strict=True)], name


def test_a_capture_beyond_the_positions_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"may have 50 tokens, but the model has 48 positions.*capture\.steps"):
        continued(kept("gpt2"), tokenizer, [[9] * 40, [8] * 2], [10, 3], Decoding())


# --- states ----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def states_of(model: torch.nn.Module, tokens: Sequence[int]) -> torch.Tensor:
    """Final states of one sequence (T, D), alone."""
    base = Decoder(model).base
    base(torch.tensor([[1]]), use_cache=False)
    return base(torch.tensor([list(tokens)]), use_cache=False).last_hidden_state[0]


@pytest.mark.parametrize("name", ["gpt2", *VARIANTS])
def test_captured_states_are_those_of_each_text_alone(name, tokenizer):
    model = kept(name)
    probes = [
        Probe(f"p{number}", words(length), "open", steps=steps)
        for number, (length, steps) in enumerate(
            [(SWITCH - 9, 4), (3, 20), (SWITCH + 2, 3), (POSITIONS - 6, 2), (4, 4)]
        )
    ]
    found = capture_trajectory(model, tokenizer, probes, 20, residual=False)
    expected = torch.cat(
        [
            states_of(model, prompt + tokens)[len(prompt) - 1 : len(prompt) - 1 + len(tokens)]
            for prompt, tokens in zip(found.prompts, found.tokens, strict=True)
        ]
    )
    torch.testing.assert_close(found.final, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(capture_forced(model, found), expected, rtol=0, atol=1e-9)
    tight = torch.cat([part.at_predictions(part.run(model)) for part in forwards(found, tight=True)])
    torch.testing.assert_close(tight, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["gpt2", *VARIANTS])
def test_states_where_options_are_chosen_are_those_of_each_question_alone(name, tokenizer):
    model = kept(name)
    contexts = [tokenizer(words(length)).input_ids for length in (3, SWITCH, SWITCH + 1, POSITIONS, 9)]
    questions = [Question(str(at), "probe", context, [1, 2], ["a", "b"], 0) for at, context in enumerate(contexts)]
    expected = torch.stack([states_of(model, context)[-1] for context in contexts])
    torch.testing.assert_close(decision_states(model, questions), expected, rtol=0, atol=1e-9)
    longer = [Question("q", "probe", [5] * (POSITIONS + 1), [1, 2], ["a", "b"], 0)]
    with pytest.raises(ValueError, match="a question has 49 tokens, but the model has 48 positions"):
        decision_states(model, longer)


@pytest.mark.parametrize("name", ["gpt2", *VARIANTS])
def test_embeddings_are_those_of_each_text_alone(name, tokenizer):
    model = kept(name)
    texts = [words(length) for length in (3, SWITCH, SWITCH + 1, 60)]
    embedder = Embedder(model, tokenizer, Recipe("last"), batch_size=3)
    with rows(model) as seen:
        found = embedder.queries(texts)
    assert max(count for count, _ in seen) <= 3
    expected = [states_of(model, tokenizer(text).input_ids[:POSITIONS])[-1].float() for text in texts]
    torch.testing.assert_close(found, torch.nn.functional.normalize(torch.stack(expected), dim=-1), rtol=0, atol=1e-6)


def test_runs_go_together_up_to_an_end():
    positions = Positions((24, 48))
    assert [positions.reach(length) for length in (1, 24, 25, 48, 49)] == [24, 24, 48, 48, float("inf")]
    runs = [(run.start, run.stop) for run in positions.runs([50, 48, 30, 25, 24, 3, 3, 2], 2)]
    assert runs == [(0, 1), (1, 3), (3, 4), (4, 6), (6, 8)]
    assert list(positions.runs([], 2)) == []
