"""Thresholds and recommendations of the advice, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis_profiles import chosen

from pipeline.data.matched.suite import FAMILIES, HALVES, relatives_of
from pipeline.evaluate.comparison import paired
from pipeline.evaluate.intervals import Interval, fieller
from pipeline.study.advice.answer import worst
from pipeline.study.advice.judged import halves_of, judge, retained_by_halves
from pipeline.study.advice.ladder import MOST_RUNGS, Rung, bracket, next_to_measure, recommend, threshold, unit_counts

KEEP = 0.9
NUMBER = st.floats(-0.5, 1.5)
INTERVAL = st.builds(
    lambda value, down, up: Interval(value, value - down, value + up), NUMBER, NUMBER.map(abs), NUMBER.map(abs)
)
SCORES = st.tuples(st.none() | INTERVAL, st.none() | INTERVAL, st.booleans(), st.integers(0, 1000))
LADDER = st.lists(SCORES, min_size=1, max_size=MOST_RUNGS).map(
    lambda parts: [
        Rung(str(place), removed, None, measured, predicted, tried or measured is not None)
        for place, (measured, predicted, tried, removed) in enumerate(parts, 1)
    ]
)


def point(value: float) -> Interval:
    return Interval(value, value - 0.05, value + 0.05)


# --- where the threshold is --------------------------------------------------------------------------------------


@given(st.integers(2, 200))
@chosen()
def test_unit_counts_go_from_one_to_half(total):
    counts = [int(count) for count in unit_counts(total)]
    assert counts == sorted(set(counts)) and len(counts) <= MOST_RUNGS
    assert counts[0] == 1 and counts[-1] == total // 2


def search(rungs: list[Rung], truth: Sequence[float], most: int) -> list[Rung]:
    """Measure one rung after another, as the advice asks for them."""
    for _ in range(len(rungs) + 1):
        place = next_to_measure(rungs, KEEP, most)
        if place is None:
            return rungs
        assert not rungs[place].tried
        rungs[place] = rungs[place]._replace(measured=point(truth[place]), tried=True)
    raise AssertionError("it asks on and on")


@given(st.lists(NUMBER, min_size=1, max_size=MOST_RUNGS), st.data())
@chosen()
def test_the_search_finds_the_threshold_in_a_few_steps(values, data):
    truth = sorted(values, reverse=True)
    kept = sum(value >= KEEP for value in truth)
    divergences = data.draw(st.lists(st.none() | st.floats(0, 10), min_size=len(truth), max_size=len(truth)))
    rungs = [Rung(str(place), divergence=kl) for place, kl in enumerate(divergences)]
    found = search(rungs, truth, most=len(truth))
    assert bracket(found, KEEP) == (kept - 1, kept)
    # The first step may be anywhere, the others halve what is left.
    assert sum(rung.tried for rung in found) <= 1 + math.ceil(math.log2(len(truth) + 1))


@given(st.lists(NUMBER, min_size=1, max_size=MOST_RUNGS))
@chosen()
def test_right_predictions_need_two_measurements(values):
    truth = sorted(values, reverse=True)
    kept = sum(value >= KEEP for value in truth)
    found = search([Rung(str(place), predicted=point(value)) for place, value in enumerate(truth)], truth, most=2)
    assert bracket(found, KEEP) == (kept - 1, kept)


@given(LADDER, st.integers(1, 4))
@chosen()
def test_the_search_ends_and_spends_no_more_than_it_may(rungs, most):
    before = sum(rung.tried for rung in rungs)
    found = search(list(rungs), [1.0 - 0.1 * place for place in range(len(rungs))], most)
    assert sum(rung.tried for rung in found) <= max(before, most)


def test_the_first_measurement_is_where_little_diverges_yet():
    rungs = [Rung(str(place), divergence=kl) for place, kl in enumerate([0.01, 0.1, 0.28, 1.5, 6.0])]
    assert next_to_measure(rungs, KEEP, 3) == 2


@given(LADDER)
@chosen(2)
def test_a_threshold_lies_below_all_that_was_measured_to_lose_too_much(rungs):
    found = threshold(rungs, KEEP)
    lost = [place for place, rung in enumerate(rungs) if rung.measured is not None and rung.measured.value < KEEP]
    last = -1 if found.last is None else rungs.index(found.last)
    assert last < min(lost, default=len(rungs))
    if found.last is not None:
        assert found.last.kept.value >= KEEP
    kept = [p for p in range(min(lost, default=len(rungs))) if rungs[p].measured and rungs[p].measured.value >= KEEP]
    assert last >= max(kept, default=-1)
    if found.below is not None:
        assert found.below.kept.value < KEEP and rungs.index(found.below) > last


@given(st.dictionaries(st.sampled_from("abc"), LADDER, min_size=1))
@chosen(2)
def test_what_is_recommended_keeps_enough_and_nothing_surer_removes_more(ladders):
    found = recommend(ladders, KEEP)
    allowed = []
    for rungs in ladders.values():
        last = threshold(rungs, KEEP).last
        allowed += [] if last is None else rungs[: rungs.index(last) + 1]
    assert (found is None) == (not any(rung.kept is not None and rung.kept.value >= KEEP for rung in allowed))
    assume(found is not None)
    assert found.rung in allowed and found.rung in ladders[found.pruner]
    enough = [rung for rung in allowed if rung.kept is not None and rung.kept.value >= KEEP]
    surely = [rung for rung in enough if rung.kept.low >= KEEP]
    assert found.sure == bool(surely)
    assert found.rung.removed == max(rung.removed for rung in (surely or enough))
    assert (found.rung.kept.low if found.sure else found.rung.kept.value) >= KEEP


def test_what_surely_keeps_enough_goes_before_what_removes_more():
    ladders = {
        "sure": [Rung("1", 10, measured=Interval(0.97, 0.91, 1.0)), Rung("2", 20, predicted=Interval(0.95, 0.92, 1.0))],
        "unsure": [Rung("1", 500, measured=Interval(0.99, 0.8, 1.1))],
    }
    found = recommend(ladders, KEEP)
    assert (found.pruner, found.rung.sparsity, found.sure) == ("sure", "2", True)
    found = recommend({"unsure": ladders["unsure"]}, KEEP)
    assert (found.pruner, found.sure) == ("unsure", False)


def test_several_kinds_of_task_are_as_good_as_the_worst():
    assert worst([Interval(0.9, 0.5, 1.2), Interval(0.8, 0.7, 0.9)]) == Interval(0.8, 0.5, 0.9)
    assert worst([point(0.9), None]) is None
    assert worst([]) is None


def measured_as(values, se):
    """One rung for each pruner, with the interval of a normal estimate."""
    return {(f"p{place}", "1"): {"a": Interval(x, x - 1.96 * se, x + 1.96 * se)} for place, x in enumerate(values)}


def ladders_of(kept):
    return {pruner: [Rung("1", 10, measured=own["a"])] for (pruner, _), own in kept.items()}


def test_the_interval_on_items_that_did_not_choose_counts_the_choosing():
    """Sixteen pruners that all retain 0.86 where 0.9 is wanted: one of them often looks good enough."""
    rng, truth, se = np.random.default_rng(0), 0.86, 0.03
    naive, honest = [], []
    for _ in range(1500):
        first, second = truth + se * rng.normal(size=(2, 16))
        if best := recommend(ladders_of(measured_as((first + second) / 2, se / np.sqrt(2))), KEEP):
            naive.append(best.rung.measured.low <= truth <= best.rung.measured.high)
        judged = judge(ladders_of, (measured_as(first, se), measured_as(second, se)), KEEP)
        if judged:
            honest.append(judged.retained.low <= truth <= judged.retained.high)
    assert min(len(naive), len(honest)) > 400
    assert np.mean(naive) < 0.5 and np.mean(honest) >= 0.94


def test_halves_are_of_families_where_relatives_can_be_kept_together():
    items = pd.DataFrame(
        [("generative", task, item) for task in FAMILIES for item in range(3)], columns=["kind", "task", "item"]
    )
    first, second = halves_of(items)
    assert set(first["task"]) == set(HALVES[0]) and set(second["task"]) == set(HALVES[1])
    assert not relatives_of(first["task"], second["task"])
    # A single half, or tasks of others, can only be divided by items.
    for tasks in (HALVES[0], ("copying", "counting", "gsm8k")):
        own = items.assign(task=items["task"].replace("plurals", "gsm8k"))
        own = own[own["task"].isin(tasks)]
        first, second = halves_of(own)
        assert set(first["task"]) == set(second["task"]) == set(own["task"]) and len(first) + len(second) == len(own)
        assert not set(first.index) & set(second.index)


def test_what_chooses_does_not_judge():
    first, second = measured_as([0.95, 0.80], 0.01), measured_as([0.70, 0.99], 0.02)
    found = judge(ladders_of, (first, second), KEEP)
    # The first half chooses p0, of which the second says 0.70; the second chooses p1, of which the first says 0.80.
    assert found.chosen == (("p0", "1"), ("p1", "1"))
    half = (0.0392 + 0.0196) / 2
    assert tuple(found.retained) == pytest.approx((0.75, 0.75 - half, 0.75 + half))
    alone = judge(ladders_of, (measured_as([0.5, 0.6], 0.01), second), KEEP)
    assert alone.chosen == (("p1", "1"),) and tuple(alone.retained) == pytest.approx((0.6, 0.5804, 0.6196))
    assert judge(ladders_of, (measured_as([0.5], 0.01), measured_as([0.6], 0.01)), KEEP) is None
    assert judge(ladders_of, ({}, {}), KEEP) is None


def test_halves_of_the_items_are_compared_each_alone():
    rng = np.random.default_rng(1)
    score = {"dense": rng.random(41) < 0.9, "pruned": rng.random(41) < 0.6}
    items = {
        name: pd.DataFrame({"task": "t", "kind": "generative", "item": range(41), "score": own.astype(float)})
        for name, own in score.items()
    }
    about = {"task": ["t"], "kind": ["generative"], "metric": "acc", "main": True, "averaged": True, "chance": 0.0}
    scores = pd.DataFrame(about | {"data": "x"})
    shuffled = items["pruned"].sample(frac=1, random_state=2)
    halves = retained_by_halves((items["dense"], scores), (shuffled, scores))
    for turn, found in enumerate(halves):
        own = {name: part.astype(float)[turn::2] for name, part in score.items()}
        assert found["generative"].value == pytest.approx(own["pruned"].mean() / own["dense"].mean())
        expected = paired(own["dense"], own["pruned"])
        assert found["generative"] == fieller(expected.pruned, expected.dense, expected.difference)
