"""Many prompts are continued as each alone by the library, with less work: in a batch that rows leave and enter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
import torch
from alone import rows as passes
from cases import ENCODERS
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from pipeline.model.cached_rows import span
from pipeline.model.common_prefix import PASS, groups
from pipeline.model.continuous import Until, continue_many
from pipeline.model.generation import continue_rows
from pipeline.model.prefill import in_passes
from pipeline.model.sources.tiny import tiny_model
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply

PAD, STEPS = 257, 9
GREEDY = {"do_sample": False}


class Divisible(StoppingCriteria):
    """Stops all rows once each has a new token that is a multiple of a number, as lm-eval's criteria do."""

    def __init__(self, number: int, start: int, rows: int) -> None:
        self.number, self.start, self.done = number, start, [False] * rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> bool:
        # Of a beam search, each row is there several times.
        self.done = self.done * (len(input_ids) // len(self.done))
        for row, token in enumerate(input_ids[:, -1].tolist()):
            self.done[row] |= input_ids.shape[1] > self.start and token % self.number == 0
        return all(self.done)


def stops(start: int, rows: int) -> StoppingCriteriaList:
    return StoppingCriteriaList([Divisible(number, start, rows) for number in (7, 11)])


def never(start: int, rows: int) -> StoppingCriteriaList:
    return StoppingCriteriaList()


def prompts(count: int, shortest: int = 2) -> list[list[int]]:
    """Of several lengths, unlike one another."""
    numbers = torch.randint(3, 250, (count, shortest + 2 * count), generator=torch.Generator().manual_seed(count))
    return [row[: shortest + (5 * n) % (2 * count)].tolist() for n, row in enumerate(numbers)]


EXAMPLES = prompts(1, 40)[0]


def until_stopped(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    found: list[int] = []
    for token in tokens:
        found.append(token)
        if token in ends or token % 7 == 0 or token % 11 == 0:
            break
    return found


def alone(model: PreTrainedModel, rows: Sequence[Sequence[int]], steps: int = STEPS) -> list[list[int]]:
    """Texts of plain ``model.generate``, one row at a time."""
    found = []
    for row in rows:
        settings = GREEDY | {"max_new_tokens": steps, "pad_token_id": PAD}
        written = model.generate(torch.tensor([row]), stopping_criteria=stops(len(row), 1), **settings)
        found.append(written[0, len(row) :].tolist())
    return found


def double(model: PreTrainedModel) -> PreTrainedModel:
    if getattr(model.config, "_experts_implementation", None):
        # The grouped product of all experts takes no float64.
        model.config._experts_implementation = "eager"
    # A head of its own, so that a token does not repeat itself.
    head = model.get_output_embeddings()
    numbers = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(1))
    head.weight = torch.nn.Parameter(numbers.to(head.weight), requires_grad=False)
    return model.double()


def many(model: PreTrainedModel, rows: Sequence[Sequence[int]], size: int = 4, **options: Any) -> list[list[int]]:
    options = {"pad_token_id": PAD} | GREEDY | options
    until = Until(options.pop("length", STEPS), options.pop("stops", stops))
    return continue_many(model, rows, [until] * len(rows), size, **options)


@pytest.fixture
def model(make_model) -> PreTrainedModel:
    """In float64, and tried before: passes are counted."""
    made = double(make_model())
    assert span(made) == float("inf")
    return made


ROWS = [*prompts(5), *([*EXAMPLES, *row] for row in prompts(6)), EXAMPLES, prompts(5)[2], [*EXAMPLES, 3]]


@pytest.mark.parametrize("size", [1, 4, 32])
def test_texts_are_those_that_the_library_writes_alone(make_model, architecture, size):
    if architecture in ENCODERS:
        pytest.skip("writes no text")
    made = double(make_model(architecture))
    expected = alone(made, ROWS)
    made.generation_config.eos_token_id = end = expected[0][0]
    expected = [until_stopped(text, [end]) for text in expected]
    assert len({len(text) for text in expected}) > 2
    found = many(made, ROWS, size)
    assert [until_stopped(text, [end]) for text in found] == expected
    if span(made) > max(map(len, ROWS)) + STEPS:
        assert found == expected


@pytest.mark.parametrize(
    "kind", ["mamba", "rwkv", "xlstm", "lfm2", "recurrent_gemma", "roberta", "roformer", "llama4_text"]
)
def test_what_cannot_be_decoded_together_is_left_to_the_library(kind):
    made = tiny_model(kind)
    rows = prompts(5)
    kept = continue_rows(made, rows, [3] * 5, 0, stops, **GREEDY)
    found = many(made, rows, 5, pad_token_id=0, length=3)
    for text, other in zip(found, kept, strict=True):
        assert until_stopped(text, [0]) == until_stopped(other, [0])


@pytest.mark.parametrize(
    "decision",
    [Decision(attention=(0,)), Decision(attention=(0, 1, 2, 3)), Decision(mlp=(1,)), Decision(blocks=(0, 2))],
)
def test_pruned_models_write_the_same(make_model, decision):
    made = double(make_model())
    span(made)
    apply(made, decision)
    assert many(made, ROWS) == alone(made, ROWS)


def test_windows_are_decoded_together_as_far_as_they_reach(make_model):
    made = double(make_model("gemma3_text"))
    window = int(span(made))
    assert window == made.config.sliding_window
    rows = [row[: window - n] for n, row in enumerate(prompts(8, window))]
    expected = alone(made, rows, 5)
    with passes(made) as seen:
        found = many(made, rows, 3, length=5)
    assert [until_stopped(text, []) for text in found] == expected
    # Rows that outgrow the window are batched by the library, as far as they have equal lengths.
    together = [row for row in rows if len(row) + 5 - 1 < window]
    assert found[-len(together) :] == expected[-len(together) :]
    assert seen[0] == (3, len(together[0]))


def test_equal_prompts_are_asked_once(model):
    rows = prompts(4)
    with passes(model) as once:
        expected = many(model, rows)
    with passes(model) as again:
        found = many(model, [*rows, rows[2], *rows, rows[2]])
    assert found == [*expected, expected[2], *expected, expected[2]]
    assert again == once


def test_a_common_prefix_is_read_once(model):
    rows = [[*EXAMPLES, *row] for row in prompts(6)]
    with passes(model) as seen:
        many(model, rows, 3, stops=never, length=1)
    own = sorted((len(row) - len(EXAMPLES) for row in rows), reverse=True)
    assert seen == [(1, len(EXAMPLES)), (3, own[0]), (3, own[3])]


def test_short_prefixes_of_several_tasks_are_read_in_one_pass(model):
    heads = [[head, *EXAMPLES[:39]] for head in (1, 2, 3)]
    rows = [[*head, *row] for head in heads for row in prompts(4)]
    with passes(model) as seen:
        found = many(model, rows, 4)
    assert found == alone(model, rows)
    assert seen[0] == (3, len(heads[0]))
    assert [shape for shape in seen if shape[1] >= len(heads[0])] == seen[:1]


def test_rows_that_end_in_different_ways_are_decoded_together(model):
    rows = prompts(12)
    until = [Until(1 + place % STEPS, never if place % 2 else stops) for place in range(len(rows))]
    expected = [
        text[: end.length] if end.stops is stops else continue_rows(model, [row], [end.length], PAD, never, **GREEDY)[0]
        for row, end, text in zip(rows, until, alone(model, rows), strict=True)
    ]
    with passes(model) as seen:
        assert continue_many(model, rows, until, len(rows), PAD, **GREEDY) == expected
    assert len({len(text) for text in expected}) > 4
    assert sum(width == 1 for _, width in seen) == max(map(len, expected)) - 1


@given(st.lists(st.integers(1, 300), max_size=60))
def test_passes_hold_every_row_and_little_padding(lengths):
    lengths.sort(reverse=True)
    parts = [lengths[part] for part in in_passes(lengths)]
    assert sorted(chain(*parts), reverse=True) == lengths
    for part in parts:
        saved = [(len(part) - end) * (part[0] - part[end]) for end in range(1, len(part))]
        assert max(saved, default=0) <= PASS


def test_rows_that_stop_leave_and_others_enter(model):
    rows = [[number, 9] for number in range(20, 60)]
    texts = alone(model, rows)
    with passes(model) as seen:
        assert many(model, rows, 8) == texts
    steps = sum(len(text) - 1 for text in texts)
    assert max(count for count, _ in seen) == 8
    decoded = sum(count for count, width in seen if width == 1)
    assert steps <= decoded <= 1.25 * steps
    # One batch after the other would wait for the longest row of each.
    waited = [max(map(len, texts[start : start + 8])) - 1 for start in range(0, 40, 8)]
    assert sum(width == 1 for _, width in seen) < sum(waited)


def test_the_head_is_applied_to_the_last_position(model):
    shapes = []
    hook = model.lm_head.register_forward_hook(lambda module, args, output: shapes.append(output.shape[1]))
    many(model, ROWS)
    hook.remove()
    assert set(shapes) == {1}


def test_progress_counts_every_row(model):
    ready: list[int] = []
    many(model, [*ROWS, ROWS[0]], advance=ready.append)
    assert sum(ready) == len(ROWS) + 1
    assert len(ready) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 0.9, "top_k": 0},
        {"do_sample": False, "num_beams": 3},
        {"do_sample": False, "repetition_penalty": 1.3},
        {"do_sample": False, "no_repeat_ngram_size": 1},
        {"do_sample": False, "min_new_tokens": 4},
    ],
)
def test_other_ways_to_choose_are_the_librarys(model, settings):
    rows = prompts(6)
    torch.manual_seed(3)
    expected = [
        text
        for part in (rows[:4], rows[4:])
        for text in continue_rows(model, part, [STEPS] * len(part), PAD, stops, **settings)
    ]
    torch.manual_seed(3)
    assert many(model, rows, **settings) == expected
    assert expected != many(model, rows)


def test_equal_prompts_are_drawn_anew(model):
    settings = {"do_sample": True, "temperature": 9.0, "top_k": 0}
    assert len({tuple(text) for text in many(model, [[5, 6, 7]] * 4, **settings)}) > 1


def test_settings_of_the_checkpoint_count(model):
    free = many(model, ROWS)
    model.generation_config.repetition_penalty = 5.0
    changed = many(model, ROWS)
    assert changed != free
    assert until_stopped(changed[0], []) == alone(model, ROWS[:1])[0]


TEXTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@given(TEXTS, st.lists(st.integers(0, 2), max_size=60))
def test_groups_share_what_they_say(texts, examples):
    asked = [*texts, *([*examples, *text] for text in texts)]
    found = groups(asked)
    assert sorted(place for group in found for place in group.places) == list(range(len(asked)))
    for group in found:
        assert len({tuple(asked[place][: group.shared]) for place in group.places}) == 1
        assert all(len(asked[place]) > group.shared for place in group.places)
        lengths = [len(asked[place]) for place in group.places]
        assert lengths == sorted(lengths, reverse=True)


def test_each_task_is_a_group_of_its_own():
    heads = [[head] * 30 for head in (1, 2, 3)]
    asked = [[9, *head, *row] for head in heads for row in prompts(5)]
    found = sorted(groups(asked), key=lambda group: min(group.places))
    assert [(group.shared, sorted(group.places)) for group in found] == [
        (31, list(range(start, start + 5))) for start in (0, 5, 10)
    ]
