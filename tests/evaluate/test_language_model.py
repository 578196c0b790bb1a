from __future__ import annotations

import pytest
import torch
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
