"""Several answers to an item: pass@k against counting, plain beam search and scores of answers one by one."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.by_harness import evaluate
from pipeline.evaluate.several import beam_pass, drawn_pass, pass_rows, tries
from pipeline.evaluate.suites.matched import MatchedSuite
from pipeline.model.as_read import as_read
from pipeline.model.beams import best_beams

answers = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=5)
)


@given(answers, st.data())
def test_pass_at_k_against_all_choices_of_k_answers(right, data):
    k = data.draw(st.integers(1, len(right[0])))
    expected = [np.mean([any(chosen) for chosen in combinations(own, k)]) for own in right]
    assert drawn_pass(right, k) == pytest.approx(expected)
    assert beam_pass(right, k) == [float(True in own[:k]) for own in right]


def test_which_k_are_scored():
    assert tries(1) == [1] and tries(4) == [1, 2, 4] and tries(6) == [1, 2, 4, 6]
    rows = {metric: (value, error) for metric, value, error in pass_rows([[False, True], [False, False]], True)}
    assert rows == {"pass@1": (0.0, 0.0), "pass@2": (0.5, pytest.approx(0.5))}


def matched(**options) -> MatchedSuite:
    return MatchedSuite(name="matched", families=["repetition"], kinds=["generative"], limit=3, **options)


def test_beams_are_those_of_transformers(make_model, tokenizer):
    """The n-th answer is the n-th best sequence by its mean log-probability, which plain beam search returns."""
    model = make_model("llama", 2)
    found = evaluate(model, tokenizer, matched(samples=3, gen_kwargs={"num_beams": 4}), seed=0)
    assert list(found.scores["metric"]) == ["exact_match", "pass@1", "pass@2", "pass@3"]
    assert list(found.scores["main"]) == [True, False, False, False]
    for sample in found.samples:
        ids = torch.tensor([tokenizer(sample["prompt"])["input_ids"]])
        (best,) = model.generate(
            ids, attention_mask=torch.ones_like(ids), num_beams=4, max_new_tokens=8, do_sample=False,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            stop_strings=["\n"], tokenizer=tokenizer,
        )  # fmt: skip
        text = tokenizer.decode(best[ids.shape[1] :], skip_special_tokens=True)
        assert sample["completion"] == text.partition("\n")[0]


PAD, END = 0, chr(256)


def test_prompts_of_equal_length_are_searched_together(make_model, monkeypatch):
    model, sizes = make_model("llama", 2).double(), []
    rows = [[5, 6, 7, 8], [9, 3, 4], [8, 7, 6, 5], [4, 4, 9], [6, 6, 5, 9]]

    def beams(together: int) -> list[tuple[int, list[str]]]:
        sizes.clear()
        how = {"num_beams": 3, "do_sample": False}
        found = best_beams(model, rows, 2, 5, PAD, lambda tokens: 11 in tokens, together, **how)
        # What follows an end of text fills a beam up to the longest of its batch.
        return [
            (place, ["".join(map(chr, beam)).partition(END)[0] for beam in beams]) for place, beams in sorted(found)
        ]

    as_read(model)  # which tries the model out, once
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda ids, **how: sizes.append(len(ids)) or generate(ids, **how))
    alone, searched = beams(1), sizes.copy()
    assert searched == [1] * 5
    assert beams(2) == alone
    assert sorted(sizes) == [1, 2, 2]


def test_drawn_answers_differ_and_are_scored_one_by_one(make_model, tokenizer):
    drawn = {"do_sample": True, "temperature": 1.0}
    found = evaluate(make_model("llama", 2), tokenizer, matched(samples=4, gen_kwargs=drawn), seed=1)
    lines = [line for line in found.lm_eval if '"resps"' in line]
    assert len(lines) == 3
    for line in lines:
        (texts,) = json.loads(line)["resps"]
        assert len(texts) == 4 and len(set(texts)) > 1
    scores = found.scores.set_index("metric")["value"]
    assert scores["pass@1"] <= scores["pass@2"] <= scores["pass@4"] and set(found.scores["n"]) == {3}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"samples": 4}, "task.samples=4 needs answers that differ"),
        ({"samples": 4, "gen_kwargs": {"num_beams": 2}}, "task.samples=4 needs answers that differ"),
        ({"gen_kwargs": {"num_beams": 2, "do_sample": True, "temperature": 1.0}}, "leave one of them out"),
    ],
)
def test_answers_that_could_not_differ_are_refused(options, problem):
    assert any(problem in text for text in matched(**options).problems())
    assert not matched(samples=4, gen_kwargs="num_beams=4").problems()
