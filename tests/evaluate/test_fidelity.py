"""Fidelity of answers: every column against numpy, scipy or plain transformers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import rankdata

from pipeline.evaluate.answer import standings_of
from pipeline.evaluate.by_harness import evaluate
from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.fidelity import COLUMNS, fidelity
from pipeline.evaluate.gold import fork, gold_texts, option_standing
from pipeline.evaluate.suites.matched import MatchedSuite
from pipeline.evaluate.written import ended, repetition

# Each with the most tokens that its definition lets a model write.
FAMILIES = {"plurals": 5, "copying": 12}
# Gold tokens of a random model are anywhere in its vocabulary; float32 sums differ in their last digits.
ROUNDING = 1e-6


@pytest.fixture(params=["llama", "mamba"])
def found(request, make_model, tokenizer):
    """A model that takes a prefix tree, and one whose states cannot be shared, with what they answer."""
    model = make_model(request.param, 2)
    suite = MatchedSuite(name="matched", families=list(FAMILIES), limit=5, batch_size=3)
    return model, evaluate(model, tokenizer, suite, seed=0)


def alone(model, tokenizer, prompt: str, limit: int) -> list[int]:
    """Greedy tokens up to a line break, one forward pass over the whole text for each."""
    ids = tokenizer(prompt)["input_ids"]
    written: list[int] = []
    with torch.inference_mode():
        while len(written) < limit and "\n" not in tokenizer.decode(written):
            written.append(int(model(torch.tensor([ids + written])).logits[0, -1].argmax()))
            if written[-1] == tokenizer.eos_token_id:
                break
    return written


def test_generated_answers_against_plain_transformers(found, tokenizer):
    model, results = found
    samples = [sample for sample in results.samples if sample["kind"] == "generative"]
    assert len(samples) == 10
    for sample in samples:
        limit = FAMILIES[sample["task"]]
        written = alone(model, tokenizer, sample["prompt"], limit)
        done = written[-1] == tokenizer.eos_token_id or "\n" in tokenizer.decode(written)
        assert (sample["tokens"], sample["truncated"]) == (len(written), not done)
        runs = Counter(tuple(written[at : at + 4]) for at in range(len(written) - 3))
        repeated = sum(count - 1 for count in runs.values()) / max(1, sum(runs.values()))
        assert sample["repetition"] == (pytest.approx(repeated) if runs else None)
        gold = tokenizer(f" {sample['gold']}", add_special_tokens=False)["input_ids"]
        at = next(at for at, pair in enumerate(zip(gold, written, strict=False)) if pair[0] != pair[1])
        with torch.inference_mode():
            ids = tokenizer(sample["prompt"])["input_ids"] + gold[:at]
            logits = model(torch.tensor([ids])).logits[0, -1].double().numpy()
        assert sample["gold_rank"] == rankdata(-logits, method="min")[gold[at]]
        assert sample["gold_p"] == pytest.approx(softmax(logits)[gold[at]], abs=ROUNDING)


def test_options_against_scipy(found):
    _, results = found
    samples = [sample for sample in results.samples if sample["kind"] == "multiple_choice"]
    items = results.items[results.items["kind"] == "multiple_choice"]
    assert len(samples) == len(items) == 10 and items["tokens"].isna().all()
    for sample, item in zip(samples, items.itertuples(), strict=True):
        values = np.asarray(sample["log_likelihoods"])
        assert item.gold_rank == rankdata(-values, method="min")[sample["gold"]]
        assert item.gold_p == pytest.approx(softmax(values)[sample["gold"]])
        assert item.choice == values.argmax() and item.score == (item.choice == sample["gold"])


@given(st.lists(st.sampled_from([-3.0, -2.5, -1.0, -700.0]), min_size=2, max_size=6), st.data())
def test_standing_of_several_gold_options(values, data):
    gold = data.draw(st.sets(st.integers(0, len(values) - 1), min_size=1))
    standing = option_standing(values, sorted(gold))
    assert standing.rank == min(rankdata(-np.asarray(values), method="min")[sorted(gold)])
    assert standing.p == pytest.approx(softmax(values)[sorted(gold)].sum())


def test_standing_of_a_token_in_a_vocabulary():
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    logits[6, :3] = 9.0  # three that are equally likely share the best rank
    continuations = [[4, 5], [6], [1, 2, 3], [2]]
    for row, tokens, standing in zip((1, 2, 5, 6), continuations, standings_of(logits, continuations), strict=True):
        values = logits[row].double().numpy()
        assert standing.rank == rankdata(-values, method="min")[tokens[-1]]
        assert standing.p == pytest.approx(softmax(values)[tokens[-1]])


@pytest.mark.parametrize(
    ("written", "golds", "expected"),
    [
        ([1, 2, 3], [[1, 2, 4]], ((1, 2), (4,))),
        ([1, 2, 3], [[9], [1, 2, 4], [1, 2, 5], [1, 2, 4, 7]], ((1, 2), (4, 5))),
        ([1, 2, 3], [[8], [1, 2]], None),
        ([1], [[1, 2]], None),
        ([7], [[1, 2]], ((), (1,))),
        ([7], [], None),
    ],
)
def test_where_a_text_leaves_its_gold_answers(written, golds, expected):
    assert fork(written, golds) == expected


def test_gold_answers_are_one_text_or_several():
    assert gold_texts("two") == ["two"] and gold_texts(["a", "b"]) == ["a", "b"] and gold_texts(3) == ["3"]
    assert gold_texts(["", " "]) == [] and gold_texts([["a"], {}]) == []


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5))
def test_repetition_against_counting(tokens, run):
    starts = range(len(tokens) - run + 1)
    seen = [tokens[at : at + run] in [tokens[before : before + run] for before in range(at)] for at in starts]
    found = repetition(tokens, run)
    assert math.isnan(found) if not seen else found == pytest.approx(np.mean(seen))


@given(st.lists(st.sampled_from("ab.|$"), max_size=12).map("".join))
def test_a_text_ends_with_its_first_end(text):
    """Characters as tokens: "$" is the token that ends a text, "ab" and "|" are stops."""
    kept, done = ended(text, "$", ["ab", "|", ""], "".join)
    ends = [end for end in range(1, len(text) + 1) if text[end - 1] == "$" or any(s in text[:end] for s in ("ab", "|"))]
    assert (len(kept), done) == ((ends[0], True) if ends else (len(text), False))


def items(kind: str, task: str, scores: list[float], **columns: list[float]) -> pd.DataFrame:
    nothing = dict.fromkeys(("choice", "gold_rank", "gold_p", "tokens", "truncated", "repetition"), np.nan)
    told = {"task": task, "kind": kind, "item": range(len(scores)), "score": scores}
    return pd.DataFrame(told | nothing).assign(**columns)


def test_flips_ranks_and_twins_are_counted():
    generated = "generative", "plurals"
    chosen = "multiple_choice", "plurals"
    dense = pd.concat(
        [
            items(*generated, [1, 1, 1, 1, 0, 0], tokens=[2, 2, 2, 2, 3, 3]),
            items(*chosen, [1, 1, 1, 0, 1, 1], choice=[0, 1, 2, 3, 0, 1], gold_p=[0.9] * 6, gold_rank=[1] * 6),
        ]
    )
    pruned = pd.concat(
        [
            items(*generated, [1, 0, 0, 0, 1, 0], gold_rank=[np.nan, 2, 50, 51, np.nan, 3], tokens=[4, 6, 6, 6, 4, 4]),
            items(
                *chosen, [1, 1, 0, 1, 1, 0], choice=[0, 1, 0, 2, 0, 3], gold_p=[0.5] * 6, gold_rank=[1, 1, 4, 1, 1, 2]
            ),
        ]
    )
    table = fidelity(dense, pruned, main_metrics(dense))
    assert list(table) == COLUMNS
    row = table.query("kind == 'generative' and task == 'plurals'").iloc[0]
    assert (row.n, row.dense_right, row.lost, row.gained) == (6, 4, 3, 1)
    assert (row.lost_ranked, row.lost_within_5, row.lost_within_50) == (3, 1, 2)
    # Items 1 and 3 are right as multiple choice.
    assert (row.lost_twins, row.lost_twins_right) == (3, 2)
    assert (row.tokens_dense, row.tokens_pruned) == (pytest.approx(14 / 6), pytest.approx(30 / 6))
    assert row.gold_rank_pruned == np.median([2, 50, 51, 3]) and math.isnan(row.choice_changed)
    row = table.query("kind == 'multiple_choice' and task == 'plurals'").iloc[0]
    assert (row.lost, row.gained, row.choice_changed) == (2, 1, pytest.approx(3 / 6))
    assert (row.gold_p_dense, row.gold_p_pruned, row.lost_twins, row.lost_twins_right) == (0.9, 0.5, 2, 0)


def test_means_sum_counts_and_average_the_rest():
    dense = pd.concat([items("generative", name, [1, 1], tokens=[1, 1]) for name in ("a", "b")])
    pruned = pd.concat(
        [items("generative", "a", [0, 1], tokens=[2, 4]), items("generative", "b", [0, 0], tokens=[6, 8])]
    )
    mean = fidelity(dense, pruned, main_metrics(dense)).set_index("task").loc[MEAN]
    assert (mean.n, mean.lost, mean.tokens_pruned, mean.lost_twins) == (4, 3, pytest.approx(5.0), 0)


def test_scores_on_another_scale_are_neither_right_nor_wrong():
    dense, pruned = items("generative", "bleu", [31.0, 2.0]), items("generative", "bleu", [20.0, 1.0])
    row = fidelity(dense, pruned, main_metrics(dense)).iloc[0]
    assert row.n == 2 and math.isnan(row.lost) and math.isnan(row.dense_right)
    found = items("retrieval", "x", [1.0])
    assert fidelity(found, found, main_metrics(found)).empty


def test_a_rate_of_errors_counts_nothing_as_right():
    """Of wer less is better: dense makes no error in three of four texts."""
    dense, pruned = items("generative", "wer", [0, 0, 0, 1]), items("generative", "wer", [1, 1, 1, 1])
    row = fidelity(dense, pruned, main_metrics(dense, less=["wer"])).iloc[0]
    assert row.n == 4 and math.isnan(row.dense_right) and math.isnan(row.lost) and math.isnan(row.gained)


def test_the_mean_counts_tasks_with_right_answers_alone():
    dense = pd.concat([items("generative", "a", [1, 0]), items("generative", "bleu", [31.0, 2.0], tokens=[4, 4])])
    pruned = pd.concat([items("generative", "a", [0, 0]), items("generative", "bleu", [20.0, 1.0], tokens=[8, 8])])
    mean = fidelity(dense, pruned, main_metrics(dense)).set_index("task").loc[MEAN]
    assert (mean.n, mean.dense_right, mean.lost, mean.tokens_pruned) == (2, 1, 1, 8)
    alone = fidelity(*(frame[frame["task"] == "bleu"] for frame in (dense, pruned)), main_metrics(dense))
    assert alone.set_index("task").loc[MEAN, "n"] == 2


def main_metrics(items: pd.DataFrame, less: Collection[str] = ()) -> pd.DataFrame:
    """Return the rows of the score table that say which way the main metric of each task goes."""
    rows = items[["task", "kind"]].drop_duplicates()
    return rows.assign(main=True, higher_is_better=~rows["task"].isin(less))
