"""Greedy texts and states of batches against plain transformers: one sequence at a time, no padding and no cache."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from alone import (
    POSITIONS,
    SWITCH,
    VARIANTS,
    WRITERS,
    harness,
    kept,
    logits_of,
    rows,
    words,
)
from lm_eval.api.instance import Instance

from pipeline.capture.options import Question, decision_states
from pipeline.config.probes import Probe
from pipeline.evaluate.retrieval.embed import Embedder
from pipeline.evaluate.retrieval.recipe import Recipe
from pipeline.model.decoder import Decoder
from pipeline.model.generation import Decoding
from pipeline.model.generation import generate as continued
from pipeline.model.positions import Positions
from pipeline.model.trajectory import capture_forced, capture_trajectory, forwards

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
