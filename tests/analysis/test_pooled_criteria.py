"""Criteria over many cells: means by hand, errors against a bootstrap, and corrected comparisons."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.analysis.pooled_criteria import pooled
from pipeline.analysis.pooled_estimate import Drawn, Estimate, Part, holm_factors, lend_draws
from pipeline.evaluate.intervals import DIFFERENCES, student

CHANCE = pd.Series({"one": 0.0, "two": 0.2})


def rows(scores: dict[tuple[str, str, int, str], dict[str, np.ndarray]], dense: dict[str, np.ndarray]) -> pd.DataFrame:
    """Rows of items: scores by (criterion, text, draw, sparsity) and task, beside the dense model's."""
    parts = []
    for (criterion, text, draw, sparsity), by_task in scores.items():
        about = {"model": "m", "tasks": "half", "text": text, "draw": draw, "sparsity": sparsity}
        for task, values in by_task.items():
            frame = pd.DataFrame(
                {"item": range(len(values)), "score": values, "dense": dense[task], "chance": CHANCE[task]}
            )
            parts.append(frame.assign(task=task, criterion=criterion, replicate=1, **about))
    return pd.concat(parts, ignore_index=True)


# Of so many items none is left that could be otherwise.
MANY = 20_000
DENSE = {"one": np.array([1.0, 1, 1, 0]), "two": np.array([1.0, 1])}


def test_means_are_over_tasks_then_cells_and_differences_over_cells_that_have_both():
    ours = {"one": np.array([1.0, 1, 0, 0]), "two": np.array([1.0, 1])}
    theirs = {"one": np.array([1.0, 0, 0, 0]), "two": np.array([1.0, 0])}
    none = {"one": np.zeros(4), "two": np.zeros(2)}
    scores = {("ours", "t", 1, "2"): ours, ("theirs", "t", 1, "2"): theirs, ("theirs", "t", 1, "4"): none}
    found = pooled(rows(scores, DENSE), "ours").set_index("criterion")
    above = (0.75 + 1.0) / 2 - 0.1
    assert found.loc["ours", "kept"] == pytest.approx(((0.5 + 1.0) / 2 - 0.1) / above)
    assert found.loc["theirs", "kept"] == pytest.approx((((0.25 + 0.5) / 2 - 0.1) / above - 0.1 / above) / 2)
    assert found.loc["theirs", "difference"] == pytest.approx((0.375 - 0.75) / above)
    assert list(found.loc[["ours", "theirs"], "cells"]) == [1, 2] and found.loc["theirs", "items"] == 6
    assert pd.isna(found.loc["ours", "difference"]) and found.loc["theirs", "against"] == "ours"


def drawn(numbers: np.random.Generator, count: int) -> tuple[dict, dict]:
    dense = {task: numbers.binomial(1, 0.8, count).astype(float) for task in CHANCE.index}
    scores = {
        (name, "t", 1, budget): {task: own * numbers.binomial(1, chance, count) for task, own in dense.items()}
        for name, chance in (("a", 0.8), ("b", 0.6))
        for budget in ("2", "4")
    }
    return scores, dense


def test_the_error_is_that_of_drawing_other_items():
    numbers = np.random.default_rng(3)
    scores, dense = drawn(numbers, 400)
    table = rows(scores, dense)
    found = pooled(table, "a").set_index("criterion").loc["b"]
    gain = {t: np.mean([scores["b", "t", 1, at][t] - scores["a", "t", 1, at][t] for at in "24"], axis=0) for t in dense}
    again = []
    for _ in range(4000):
        chosen = {task: numbers.integers(0, 400, 400) for task in dense}
        above = np.mean([dense[task][chosen[task]].mean() - CHANCE[task] for task in dense])
        again.append(np.mean([gain[task][chosen[task]].mean() for task in dense]) / above)
    assert found["difference"] == pytest.approx(
        np.mean([own.mean() for own in gain.values()])
        / np.mean([own.mean() - CHANCE[task] for task, own in dense.items()])
    )
    half = (found["high"] - found["low"]) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 798) * np.std(again), rel=0.06)
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(found["difference"]) / (half / stats.t.ppf(0.975, 798)), 798))


def test_cells_that_ask_the_same_items_say_no_more_than_one_of_them():
    scores, dense = drawn(np.random.default_rng(4), 40)
    once = {key: own for key, own in scores.items() if key[3] == "2"}
    twice = once | {(*key[:3], "4"): own for key, own in once.items()}
    one, two = (pooled(rows(part, dense), "a").set_index("criterion").loc["b"] for part in (once, twice))
    assert list(one[["difference", "low", "high"]]) == pytest.approx(list(two[["difference", "low", "high"]]))


def test_other_draws_of_the_text_widen_the_interval_as_much_as_they_differ():
    """With items that leave no doubt, what is left is Student's interval over the draws."""
    dense = {"one": np.ones(MANY)}
    kept = [0.25, 0.5, 0.75]

    def score(share: float) -> dict[str, np.ndarray]:
        return {"one": np.full(MANY, share)}

    scores = {("a", "t", draw, "2"): score(share) for draw, share in enumerate(kept)}
    scores |= {("b", "t", draw, "2"): score(0.25) for draw in range(3)}
    found = pooled(rows(scores, dense), "b").set_index("criterion").loc["a"]
    expected = stats.t.interval(0.95, 2, loc=0.25, scale=np.std(kept, ddof=1) / np.sqrt(3))
    assert (found["low"], found["high"]) == pytest.approx(expected, abs=1e-3)
    assert found["draws"] == 3 and found["items_to_tell"] == float("inf")


def test_draws_of_a_random_criterion_count_as_their_mean_and_widen_its_interval():
    dense = {"one": np.ones(MANY)}
    table = rows({("a", "t", 1, "2"): {"one": np.ones(MANY)}}, dense)
    kept = [0.0, 0.25, 0.5, 0.75]
    for draw, share in enumerate(kept):
        part = rows({("random", "t", 1, "2"): {"one": np.full(MANY, share)}}, dense)
        table = pd.concat([table, part.assign(replicate=draw)], ignore_index=True)
    found = pooled(table, "a").set_index("criterion").loc["random"]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(kept), scale=np.std(kept, ddof=1) / 2)
    assert (found["kept_low"], found["kept_high"]) == pytest.approx((low, high), abs=1e-3)
    assert (found["low"], found["high"]) == pytest.approx((low - 1, high - 1), abs=1e-3)


def constant(scores: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    """Rows of a model without a doubt about items: a score for each replicate of (criterion, sparsity)."""
    dense = {"one": np.ones(MANY)}
    parts = [
        rows({(name, "t", 1, sparsity): {"one": np.full(MANY, score)}}, dense).assign(replicate=replicate)
        for (name, sparsity), own in scores.items()
        for replicate, score in enumerate(own)
    ]
    return pd.concat(parts, ignore_index=True)


def test_the_reference_and_the_other_change_places():
    table = constant({("a", "2"): [0.0, 0.5, 1.0], ("b", "2"): [0.75]})
    ahead, behind = (pooled(table, name).set_index("criterion") for name in "ab")
    assert list(ahead.loc["b", ["difference", "low", "high"]]) == pytest.approx(
        [-behind.loc["a", name] for name in ("difference", "high", "low")]
    )
    assert ahead.loc["b", "low"] < 0 < ahead.loc["b", "high"]


def test_draws_differ_as_they_do_where_all_were_run():
    """A budget that one draw alone was run at says nothing on how far draws differ; it weighs as one of the cells."""
    easy = constant({("a", "2"): [0.25, 0.25, 0.25], ("a", "4"): [1.0], ("b", "2"): [0.5], ("b", "4"): [0.5]})
    row = pooled(easy, "b").set_index("criterion").loc["a"]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.125, 0.125, 0.125), abs=1e-3)
    kept = [0.25, 0.5, 0.75]
    row = (
        pooled(constant({("a", "2"): kept, ("a", "4"): [0.5], ("b", "2"): [0.5]}), "a").set_index("criterion").loc["a"]
    )
    # The first draw has a third of one cell and all of the other.
    share = np.square([(1 / 3 + 1) / 2, 1 / 6, 1 / 6]).sum()
    half = stats.t.ppf(0.975, 2) * np.std(kept, ddof=1) * np.sqrt(share)
    assert (row["kept_low"], row["kept_high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-3)


def test_draws_of_a_text_are_lent_to_those_with_one():
    dense = {"one": np.ones(MANY)}
    kept = {"a": [0.25, 0.5, 0.75], "b": [0.5, 0.5, 0.5], "c": [0.25], "blind": [0.5, 0.5, 0.5]}
    scores = {
        (name, "t", draw, "2"): {"one": np.full(MANY, score)}
        for name, own in kept.items()
        for draw, score in enumerate(own)
    }
    table = rows(scores, dense)
    found = pooled(table.assign(reads=table["criterion"] != "blind"), "b").set_index("criterion")
    # a has its own variance, b none; c, with one draw, gets half of that of a, with the degrees of freedom of either.
    variance = np.var(kept["a"], ddof=1)
    widths = {
        "a": stats.t.ppf(0.975, 2) * np.sqrt(variance / 3),
        "b": 0.0,
        "c": stats.t.ppf(0.975, 2) * np.sqrt(variance / 2),
        "blind": 0.0,
    }
    for name, width in widths.items():
        value = np.mean(kept[name])
        assert (found.loc[name, "kept_low"], found.loc[name, "kept_high"]) == pytest.approx(
            (value - width, value + width), abs=1e-3
        )
    assert dict(found["draws"]) == {"a": 3, "b": 3, "c": 1, "blind": 0}
    assert found.loc["c", "low"] < -0.25 < found.loc["c", "high"]


@pytest.mark.parametrize(("noise", "of_reference"), [([0.05] * 6, 0.05), ([0.01] * 6, 0.1), ([0.06] * 5 + [0.3], 0.06)])
def test_criteria_that_are_equal_are_told_apart_in_one_of_twenty(noise, of_reference):
    """Draws move some criteria more than others, and those of the reference stand in every difference."""
    numbers, runs, told = np.random.default_rng(0), 2000, np.zeros(len(noise))
    for _ in range(runs):
        reference = numbers.normal(0, of_reference, (2, 3))
        apart = numbers.normal(0, np.array(noise)[:, None, None], (len(noise), 2, 3)) - reference
        found = lend_draws(
            {
                at: Estimate(own.mean(), Part(1e-8, 1e3), {"texts": Drawn(Part(own.var(1, ddof=1).mean(), 4), 1 / 6)})
                for at, own in enumerate(apart)
            },
            ["texts"],
        )
        told += [one.p() < 0.05 for one in found.values()]
    assert np.all(np.abs(told / runs - 0.05) < 4 * np.sqrt(0.05 * 0.95 / runs))


def test_a_budget_counts_once_however_often_the_text_was_drawn():
    scores = {("a", "t", draw, "2"): {"one": np.full(MANY, 0.9)} for draw in range(3)}
    scores |= {("a", "t", 0, "4"): {"one": np.full(MANY, 0.2)}}
    scores |= {(*("b", *key[1:]),): {"one": np.full(MANY, 0.5)} for key in list(scores)}
    found = pooled(rows(scores, {"one": np.ones(MANY)}), "b").set_index("criterion")
    assert found.loc["a", "kept"] == pytest.approx(0.55) and found.loc["a", "difference"] == pytest.approx(0.05)
    assert set(found["cells"]) == {2}


def test_draws_differ_on_the_items_that_all_of_them_were_asked():
    """The second draw was asked more items, which are harder; on the others it keeps as much as the first."""
    few, more = np.ones(MANY), np.concatenate([np.ones(MANY), np.zeros(MANY)])
    table = pd.concat(
        [
            rows({("a", "t", draw, "2"): {"one": own}}, {"one": np.ones(len(own))})
            for draw, own in enumerate((few, more))
        ],
        ignore_index=True,
    )
    row = pooled(table, "a").iloc[0]
    assert row["kept"] == pytest.approx(0.75) and row["kept_high"] - row["kept_low"] < 0.02


@pytest.mark.parametrize(("count", "difference"), [(2, 1.0), (24, 0.0), (24, 1.0)])
def test_items_that_are_all_alike_leave_room_for_others(count, difference):
    """As much as the paired comparison of one task does."""
    dense = {"one": np.ones(count)}
    scores = {("a", "t", 1, "2"): {"one": np.full(count, difference)}, ("b", "t", 1, "2"): {"one": np.zeros(count)}}
    row = pooled(rows(scores, dense), "b").set_index("criterion").loc["a"]
    expected = student(np.full(count, difference), (-2.0, 2.0) if difference else DIFFERENCES)
    half = (row["high"] - row["low"]) / 2
    assert half > 0 and (row["p"] < 0.05) == (abs(difference) > half)
    assert difference or half == pytest.approx(expected.high)


def test_one_item_tells_nothing():
    scores = {("a", "t", 1, "2"): {"one": np.ones(1)}, ("b", "t", 1, "2"): {"one": np.zeros(1)}}
    row = pooled(rows(scores, {"one": np.ones(1)}), "b").set_index("criterion").loc["a"]
    assert row["difference"] == 1 and row["p"] == 1 and (row["low"], row["high"]) == (-np.inf, np.inf)
    assert row["items_to_tell"] == np.inf


def test_items_without_a_score_do_not_count():
    scores, dense = drawn(np.random.default_rng(6), 40)
    table = rows(scores, dense)
    gone = (table["item"] == 3) & (table["sparsity"] == "2") & (table["criterion"] == "b")
    one, two = (
        pooled(part, "a").set_index("criterion").loc["b", ["kept", "difference", "low", "p"]]
        for part in (table.assign(score=table["score"].mask(gone)), table[~gone])
    )
    assert list(one) == pytest.approx(list(two))


def test_as_many_items_as_are_said_tell_a_difference_in_four_of_five_repetitions():
    estimate = Estimate(0.1, Part(0.04**2, 1e6), {})
    more = estimate.items_to_tell(100)
    error = 0.04 * np.sqrt(100 / more)
    assert stats.norm.sf(stats.norm.ppf(0.975), loc=0.1 / error) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_intervals_exclude_zero_where_the_corrected_p_says_so(seed):
    numbers = np.random.default_rng(seed)
    dense = {task: np.ones(60) for task in CHANCE.index}
    scores = {
        (f"c{at}", "t", 1, "2"): {task: numbers.binomial(1, chance, 60).astype(float) for task in dense}
        for at, chance in enumerate((0.8, 0.8, 0.72, 0.6, 0.5))
    }
    found = pooled(rows(scores, dense), "c0").dropna(subset="p")
    told = (found["low"] > 0) | (found["high"] < 0)
    assert list(told) == list(found["p_holm"] < 0.05) and told.any()
    # What takes no more items than were asked has been told.
    assert set(found.index[found["items_to_tell"] <= found["items"]]) <= set(found.index[told])


def test_a_reference_that_is_not_there_is_refused():
    scores, dense = drawn(np.random.default_rng(5), 8)
    with pytest.raises(ValueError, match="no rows of divergence"):
        pooled(rows(scores, dense), "divergence")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_as_its_steps_do(p):
    """Step down: the smallest p against 0.05 / m, the next against 0.05 / (m - 1), until one is not below."""
    corrected = np.minimum(1, np.array(p) * holm_factors(p))
    rejected = set()
    for place, at in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        if p[at] * (len(p) - place) >= 0.05:
            break
        rejected.add(at)
    assert {at for at in range(len(p)) if corrected[at] < 0.05} == rejected
    assert np.all(corrected >= p) and np.all(corrected <= 1)
    assert np.all(holm_factors(p) >= 1)
