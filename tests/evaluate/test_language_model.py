from __future__ import annotations

import pytest
import torch
from alone import rows as passes
from cases import ENCODERS
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from pipeline.evaluate.language_model import InMemoryLM
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply

REQUESTS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is", " Rome or some other town"),
    ("The capital of France is", "x"),
    ("2 + 2 =", " 4"),
    ("2 + 2 =", " 5"),
    ("A much longer context that has more words in it than the others, or so", " it seems"),
]


def instances() -> list[Instance]:
    return [Instance("loglikelihood", {}, request, index) for index, request in enumerate(REQUESTS)]


@pytest.mark.parametrize(
    "decision", [Decision(), Decision(attention=(0,)), Decision(attention=(0, 1, 2, 3)), Decision(blocks=(1,))]
)
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_log_likelihoods_equal_the_harness_own(make_model, tokenizer, architecture, decision, batch_size):
    if architecture in ENCODERS:
        pytest.skip("weighs no answers")
    model = make_model(architecture)
    apply(model, decision)
    ours = InMemoryLM(model, tokenizer, batch_size).loglikelihood(instances(), disable_tqdm=True)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).loglikelihood(instances(), disable_tqdm=True)
    for (value, greedy), (expected, expected_greedy) in zip(ours, theirs, strict=True):
        assert value == pytest.approx(expected, abs=2e-4)
        assert greedy == expected_greedy


def test_a_context_that_is_too_long_is_cut_from_the_left_as_the_harness_does(make_model, tokenizer):
    model = make_model()
    model.config.max_position_embeddings = 40
    long = [Instance("loglikelihood", {}, ("word " * 30 + "end", " of it"), 0)]
    ours = InMemoryLM(model, tokenizer, 4).loglikelihood(long, disable_tqdm=True)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).loglikelihood(long, disable_tqdm=True)
    assert ours[0][0] == pytest.approx(theirs[0][0], abs=2e-4)


def test_an_edited_output_head_stays_edited(make_model, tokenizer):
    model = make_model()
    model.config.tie_word_embeddings = True
    edited = torch.nn.Parameter(model.lm_head.weight.detach() * 2)
    model.lm_head.weight = edited
    InMemoryLM(model, tokenizer, 1)
    assert model.lm_head.weight is edited


TALK = ("Q: {} A:", "Sing of {}, please.", "{}")
SUBJECTS = ("winter", "a rather long walk", "tea", "nothing at all", "x", "tea")
STOPS: list[dict[str, object]] = [
    {"until": ["\n", "e"], "max_gen_toks": 12, "do_sample": False},
    {"until": ["a", "t"], "max_gen_toks": 12},
    {"until": [], "max_gen_toks": 5, "temperature": 0.0},
]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_texts_are_cut_as_the_harness_cuts_those_of_each_prompt_alone(make_model, tokenizer, batch_size):
    model = make_model().double()
    model.lm_head.weight.data *= 50
    texts = [
        f"{'An example of it. ' * (n % 2)}{talk.format(subject)}" for n, talk in enumerate(TALK) for subject in SUBJECTS
    ]
    asked = [
        Instance("generate_until", {}, (text, kwargs), number)
        for number, (kwargs, text) in enumerate((kwargs, text) for kwargs in STOPS for text in texts)
    ]
    found = InMemoryLM(model, tokenizer, batch_size).generate_until(asked, disable_tqdm=True)
    assert found == HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).generate_until(asked, disable_tqdm=True)
    assert len(set(map(len, found))) > 3


def test_tasks_with_limits_of_their_own_are_decoded_together(make_model, tokenizer):
    model = make_model().double()
    asked = [
        Instance("generate_until", {}, (f"Say {n}", {"until": ["\n"], "max_gen_toks": 3 + n, "do_sample": False}), n)
        for n in range(8)
    ]
    harness = InMemoryLM(model, tokenizer, 8)
    expected = [harness.generate_until([each], disable_tqdm=True)[0] for each in asked]
    with passes(model) as seen:
        assert harness.generate_until(asked, disable_tqdm=True) == expected
    decoded = [count for count, width in seen if width == 1]
    assert max(decoded) == 8
    assert len(decoded) <= 3 + 7


def test_drawn_answers_are_drawn_beside_greedy_ones_of_the_same_prompt(make_model, tokenizer):
    model = make_model().double()
    greedy = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
    drawn = {"until": ["\n"], "max_gen_toks": 8, "do_sample": True, "temperature": 9.0}
    asked = [Instance("generate_until", {}, ("Say 1", kwargs), n) for n, kwargs in enumerate([greedy, *[drawn] * 3])]
    harness = InMemoryLM(model, tokenizer, 4)
    texts = harness.generate_until(asked, disable_tqdm=True)
    assert len(set(texts)) > 2
    assert texts[0] == harness.generate_until(asked[:1], disable_tqdm=True)[0]


def test_equal_requests_are_generated_once(make_model, tokenizer):
    """Also where lm-eval repeats a request, and those of two tasks are the same."""
    model = make_model()
    harness = InMemoryLM(model, tokenizer, 4)
    asked = [Instance("generate_until", {}, (f"Say {n % 3}", STOPS[0]), n) for n in range(9)]
    harness.generate_until(asked[:3], disable_tqdm=True)
    counts = []
    hook = model.register_forward_pre_hook(lambda module, args, kwargs: counts.append(len(args[0])), with_kwargs=True)
    found = harness.generate_until(asked, disable_tqdm=True)
    hook.remove()
    assert max(counts) <= 3
    assert found == found[:3] * 3
