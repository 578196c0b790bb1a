"""The options protocol: the first step at which options differ, and the tables of the sets there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import ENCODERS
from helpers import changes_of
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from pipeline.capture import options as module
from pipeline.capture.options import (
    PROBE,
    Question,
    decision_states,
    load_options,
    probe_questions,
    question_of,
    save_options,
    task_questions,
)
from pipeline.config.probes import PROBES
from pipeline.measure.options import CONTROL, DRAWS, OPTIONS, TOP, VOCABULARY, measure_options
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.prune.surgery import change_weights


def ask(*answers: list[int], gold: int = 0) -> Question | None:
    return question_of("q", "task", [7, 8], list(answers), [str(answer) for answer in answers], gold)


def test_options_that_differ_at_once_leave_the_context():
    question = ask([1, 5], [2, 5], [3], gold=2)
    assert (question.context, question.options, question.gold) == ([7, 8], [1, 2, 3], 2)


def test_what_all_options_begin_with_belongs_to_the_context():
    question = ask([4, 4, 1], [4, 4, 2, 9], [4, 4, 3])
    assert (question.context, question.options) == ([7, 8, 4, 4], [1, 2, 3])


@pytest.mark.parametrize(
    "answers",
    [
        ([1, 2], [1, 2]),  # nothing tells them apart
        ([1], [1, 2]),  # one is the beginning of the other
        ([4, 1], [4, 1, 2]),
        ([1, 2], [1, 3], [2, 2]),  # the first step leaves two together
        ([], [1]),
    ],
)
def test_questions_that_no_single_step_decides_are_left_out(answers):
    assert ask(*answers) is None


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=2, max_size=4))
def test_a_question_decides_between_all_options_or_there_is_none(answers):
    question = ask(*answers)
    if question is None:
        return
    shared = question.context[2:]
    assert len(set(question.options)) == len(answers)
    for answer, option in zip(answers, question.options, strict=True):
        assert answer[: len(shared)] == shared and answer[len(shared)] == option


def test_probes_with_options_are_asked_for_a_letter(tokenizer):
    questions = probe_questions(PROBES, tokenizer)
    assert [question.name for question in questions] == ["choice-1", "choice-2", "choice-3", "choice-4"]
    for question, probe in zip(questions, PROBES, strict=False):
        assert question.origin == PROBE
        assert tokenizer.decode(question.context) == f"{probe.prompt}\nAnswer: "
        assert [tokenizer.decode([option]) for option in question.options] == list("ABCD")
        assert question.gold == probe.answer
    unknown = probe_questions([replace(PROBES[0], answer=None)], tokenizer)
    assert unknown[0].gold == -1


def test_task_questions_are_the_harness_own_prompts(make_model, make_settings, tokenizer, caplog):
    task = make_settings("task.families=[copying,antonyms]").task
    with caplog.at_level("INFO", logger="pipeline"):
        questions = task_questions(task, 6, 0, make_model(), tokenizer)
    assert f"{12 - len(questions)} of 12 questions left out" in caplog.text
    assert {question.origin for question in questions} <= {"copying", "antonyms"}
    assert 0 < len(questions) <= 12
    assert len({question.name for question in questions}) == len(questions)
    for question in questions:
        asked = tokenizer.decode(question.context)
        assert 0 <= question.gold < len(question.options) == len(question.texts)
        assert len(set(question.options)) == len(question.options)
        for text, option in zip(question.texts, question.options, strict=True):
            begun = next(n for n in range(len(text), -1, -1) if asked.endswith(text[:n]))
            assert tokenizer.decode([option]) == text[begun]
    assert task_questions(task, 6, 0, make_model(), tokenizer) == questions
    assert task_questions(task, 0, 0, make_model(), tokenizer) == []


def test_decision_states_are_those_of_each_context_alone(make_model, tokenizer, architecture, monkeypatch):
    if architecture in ENCODERS:
        pytest.skip("decides nothing")
    model, questions = make_model(architecture), probe_questions(PROBES, tokenizer)
    monkeypatch.setattr(module, "BATCH", 3)
    states = decision_states(model, questions)
    for question, state in zip(questions, states, strict=True):
        with torch.inference_mode():
            alone = Decoder(model).base(torch.tensor([question.context]), use_cache=False).last_hidden_state[0, -1]
        torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-5)


def test_questions_survive_the_disk(tmp_path, tokenizer):
    questions, states = probe_questions(PROBES, tokenizer), torch.randn(4, 8)
    save_options(questions, states, tmp_path)
    loaded, kept = load_options(tmp_path)
    assert loaded == questions
    assert torch.equal(kept, states)


@pytest.fixture
def measured(make_model, tokenizer):
    """Tables of the probes under a pruned model, and the float64 logits of both models."""
    model, other = make_model(), make_model()
    for change in changes_of(other, 0.5).values():
        change_weights(other, change)
    questions = probe_questions(PROBES, tokenizer)
    questions[3] = replace(questions[3], gold=-1)
    head = Head(Decoder(model).head.weight.detach() * 20)
    dense, pruned = decision_states(model, questions), decision_states(other, questions)
    sets, tokens = measure_options(questions, dense, pruned, head, [1.0, 0.5], tokenizer, seed=3)
    z, z2 = ((states.double() @ head.weight.double().T).numpy() for states in (dense, pruned))
    again, _ = measure_options(questions, dense, pruned, head, [1.0, 0.5], tokenizer, seed=3)
    assert again.equals(sets)
    return questions, sets, tokens, z, z2


def test_each_question_has_a_row_for_each_set_and_temperature(measured):
    questions, sets, _, _, _ = measured
    assert len(sets) == len(questions) * (2 + DRAWS) * 2
    for (name, temperature), rows in sets.groupby(["prompt", "temperature"]):
        assert rows.set.value_counts().to_dict() == {VOCABULARY: 1, OPTIONS: 1, CONTROL: DRAWS}, (name, temperature)
        assert sorted(rows[rows.set == CONTROL].draw) == list(range(DRAWS))
    assert set(sets[sets.set != VOCABULARY]["size"]) == {4.0}


def test_sets_are_renormalised_softmaxes(measured):
    questions, sets, _, z, z2 = measured
    for name, members_of in ((OPTIONS, lambda question: question.options), (VOCABULARY, lambda _: slice(None))):
        for temperature in (1.0, 0.5):
            rows = sets[(sets.set == name) & (sets.temperature == temperature)]
            for row, question, a, b in zip(rows.itertuples(), questions, z, z2, strict=True):
                members = members_of(question)
                inside, changed = (log_softmax(x[members] / temperature) for x in (a, b))
                assert row.kl == pytest.approx((np.exp(inside) * (inside - changed)).sum(), rel=1e-4)
                assert row.flip == (inside.argmax() != changed.argmax())
                for who, x in (("dense", a), ("pruned", b)):
                    mass = np.exp(log_softmax(x / temperature)[members]).sum()
                    assert getattr(row, f"mass_{who}") == pytest.approx(mass, rel=1e-4)
                    rank = np.mean([(x > value).sum() for value in x[members]])
                    assert getattr(row, f"rank_{who}") == pytest.approx(rank)


def test_right_answers_count_where_they_are_known(measured):
    questions, sets, _, z, z2 = measured
    rows = sets[(sets.set == OPTIONS) & (sets.temperature == 1.0)]
    for who, values in (("dense", z), ("pruned", z2)):
        expected = [
            float(x[question.options].argmax() == question.gold) if question.gold >= 0 else np.nan
            for x, question in zip(values, questions, strict=True)
        ]
        np.testing.assert_array_equal(rows[f"correct_{who}"], expected)
        assert sets[sets.set != OPTIONS][f"correct_{who}"].isna().all()


def test_tokens_are_the_options_and_the_likeliest(measured):
    questions, _, tokens, z, z2 = measured
    for question, a, b in zip(questions, z, z2, strict=True):
        rows = tokens[tokens.prompt == question.name]
        option, top = rows[rows.role == "option"], rows[rows.role == "top"]
        assert list(option.token) == question.options
        assert list(option.text) == question.texts
        assert [place for place, gold in zip(option.place, option.gold, strict=True) if gold] == [
            place for place in [question.gold] if place >= 0
        ]
        assert list(top.token) == list((-a).argsort()[:TOP])
        assert list(top.rank_dense) == list(range(TOP))
        np.testing.assert_allclose(rows.logp_dense, log_softmax(a)[rows.token], rtol=1e-4)
        np.testing.assert_allclose(rows.logp_pruned, log_softmax(b)[rows.token], rtol=1e-4)


def test_controls_are_other_tokens_even_where_logits_are_equal(tokenizer):
    """Of a hundred tokens with one logit, two are the options: a control holds neither."""
    vocabulary, tied = 200, torch.arange(50, 150)
    weight = torch.linspace(-1, 1, vocabulary).unsqueeze(-1)
    weight[tied] = 5.0
    # Moving only the two options tells which sets hold one of them.
    moved = torch.zeros(vocabulary, 1)
    moved[[51, 53]] = torch.tensor([[3.0], [-3.0]])
    head = Head(torch.cat([weight, moved], 1))
    question = Question("q", "task", [1], [51, 53], ["a", "b"], 0)
    dense, pruned = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    sets, _ = measure_options([question], dense, pruned, head, [1.0], tokenizer, seed=0)
    assert (sets[sets.set == CONTROL].kl == 0).all()
    assert (sets[sets.set == OPTIONS].kl > 1).all()
