"""Error rates and coverage of intervals: enumerated where outcomes can be counted, simulated with seeds elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binom, multinomial, ttest_1samp

from pipeline.evaluate.comparison import NO_SIGNAL, Paired, paired, verdict_of
from pipeline.evaluate.intervals import (
    Interval,
    Z,
    fieller,
    mcnemar_p,
    normal_p,
    stratified,
    student,
    student_p,
    tango,
    wilson,
)
from pipeline.evaluate.verdict import KEPT, LOST, MARGIN, UNDECIDED

SIGNIFICANT = 0.05
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
of_shares, of_pairs = functools.cache(wilson), functools.cache(tango)


def excludes(interval: Interval, value: float) -> bool:
    return not interval.low <= value <= interval.high


# Right and wrong items


@functools.cache
def most_gained(changed: int) -> int:
    """The most items gained, of so many changed ones, at which the test still rejects; -1 if it never does."""
    most = most_gained(changed - 1) if changed else -1
    while 2 * (most + 1) < changed and mcnemar_p(most + 1, changed - most - 1) < SIGNIFICANT:
        most += 1
    return most


@functools.cache
def rejected(upto: int) -> np.ndarray:
    """The chance (upto + 1,) that a true null is rejected, given the number of changed items."""
    return np.array([2 * binom.cdf(most_gained(changed), changed, 0.5) for changed in range(upto + 1)])


def test_true_nulls_are_rejected_at_most_as_often_as_stated() -> None:
    """Without slack, given any number of changed items up to 500, so for any number of items that often change."""
    given_changes = rejected(500)
    assert given_changes.max() <= SIGNIFICANT
    for n in (4, 5, 8, 12, 20, 50, 120, 500):
        rates = [binom.pmf(np.arange(n + 1), n, share) @ given_changes[: n + 1] for share in (0.02, 0.1, 0.3, 0.6, 1)]
        assert max(rates) <= SIGNIFICANT
        # Not bought by never rejecting anything.
        assert max(rates) > (0.03 if n >= 12 else -1)


def test_rejections_are_those_of_the_exact_test() -> None:
    """But for ten numbers of changed items, at which the exact test takes one more item to be enough."""
    exact = [2 * binom.cdf(np.arange(changed + 1), changed, 0.5) < SIGNIFICANT for changed in range(501)]
    more = [int(own.sum()) - 1 - most_gained(changed) for changed, own in enumerate(exact)]
    assert set(more) == {0, 1} and sum(more) == 10 and not any(more[:17])


@pytest.mark.parametrize("n", [4, 5, 8, 12, 20, 32])
def test_interval_and_p_are_one_for_every_table(n: int) -> None:
    for gained in range(n + 1):
        for lost in range(n + 1 - gained):
            found, p = tango(gained, lost, n), mcnemar_p(gained, lost)
            assert excludes(found, 0) == (p < SIGNIFICANT)
            assert -1 <= found.low <= found.value <= found.high <= 1


def test_four_lost_items_are_too_few() -> None:
    found = paired(np.ones(4), np.zeros(4))
    assert found.p == pytest.approx(0.1336, abs=1e-4) and found.difference.high > 0
    assert paired(np.ones(6), np.zeros(6)).difference.high < 0 < 0.05 - paired(np.ones(6), np.zeros(6)).p


@pytest.mark.parametrize("n", [5, 8, 20, 50])
def test_intervals_of_pairs_cover_the_truth(n: int) -> None:
    tables = [(gained, lost) for gained in range(n + 1) for lost in range(n + 1 - gained)]
    found = np.array([of_pairs(gained, lost, n) for gained, lost in tables])
    counts = [(gained, lost, n - gained - lost) for gained, lost in tables]
    for gained, lost in ((0, 0.02), (0, 0.1), (0.05, 0.05), (0.05, 0.2), (0.02, 0.3), (0.3, 0.3), (0.1, 0.8)):
        likely, truth = multinomial.pmf(counts, n, [gained, lost, 1 - gained - lost]), gained - lost
        assert likely[(found[:, 1] <= truth) & (truth <= found[:, 2])].sum() > 0.94
        # Not bought by needless width.
        deviation = np.sqrt((gained + lost - truth**2) / n)
        assert likely @ (found[:, 2] - found[:, 1]) < 2 * Z * (deviation + 1 / np.sqrt(n * (n + Z**2))) + 2 / n


def test_ratios_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    for n, shares in ((50, (0.5, 0.1, 0.2, 0.2)), (20, (0.6, 0.05, 0.15, 0.2)), (100, (0.02, 0.0, 0.6, 0.38))):
        truth, inside = (shares[0] + shares[1]) / (shares[0] + shares[2]), 0
        for both, gained, lost, _ in rng.multinomial(n, shares, size=2000).tolist():
            dense, pruned = of_shares(both + lost, n), of_shares(both + gained, n)
            inside += not excludes(fieller(pruned, dense, of_pairs(gained, lost, n)), truth)
        assert inside / 2000 > 0.935


# Graded items


def f1(rng: np.random.Generator, n: int, changed: float) -> tuple[np.ndarray, np.ndarray]:
    """Many scores of 0 and 1, some between; items that change get any other."""
    dense, anew = (np.clip(rng.uniform(-0.6, 1.6, n), 0, 1) for _ in range(2))
    return dense, np.where(rng.random(n) < changed, anew, dense)


def ndcg(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two fifths are not found at all, half of the others change a little."""
    dense = np.where(rng.random(n) < 0.4, 0, rng.beta(2, 1, n))
    return dense, np.clip(np.where(rng.random(n) < 0.5, dense * (1 + rng.normal(-0.05, 0.1, n)), dense), 0, 1)


def slight(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Every item a tenth lower."""
    dense = rng.beta(3, 3, n)
    return dense, 0.9 * dense


def rare(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A twentieth of items lose anything up to all."""
    dense = rng.uniform(0.5, 1, n)
    return dense, np.where(rng.random(n) < 0.05, dense * rng.random(n), dense)


GRADED: dict[str, Draw] = {
    "f1": lambda rng, n: f1(rng, n, 0.4),
    "f1, few changes": lambda rng, n: f1(rng, n, 0.1),
    "ndcg": ndcg,
    "slight": slight,
    "rare": rare,
}


@pytest.mark.parametrize("name", GRADED)
def test_intervals_of_graded_differences_cover_the_truth(name: str) -> None:
    dense, pruned = GRADED[name](np.random.default_rng(1), 1_000_000)
    truth, spread = (pruned - dense).mean(), (pruned - dense).std()
    for n in (4, 8, 30, 120):
        rng = np.random.default_rng(n)
        found = [student(pruned - dense, (-1, 1)) for dense, pruned in (GRADED[name](rng, n) for _ in range(800))]
        assert np.mean([not excludes(one, truth) for one in found]) > 0.93
        if n >= 30:
            # Not bought by needless width: less than one item may change.
            assert np.mean([one.high - one.low for one in found]) < 2 * (Z * spread / np.sqrt(n) + Z**2 / n)


@pytest.mark.parametrize("n", [4, 8, 20, 60])
def test_true_nulls_of_graded_items_are_seldom_rejected(n: int) -> None:
    """The two models' scores change places at random. Student's t allows a little more at few items."""
    rng, count = np.random.default_rng(n), 0
    for _ in range(1500):
        dense, pruned = f1(rng, n, 0.6)
        count += student_p((pruned - dense) * rng.choice([-1, 1], n)) < SIGNIFICANT
    assert count / 1500 < SIGNIFICANT + 0.01


def test_small_changes_of_every_item_are_told() -> None:
    dense = np.random.default_rng(3).uniform(0.35, 0.65, 30)
    found = paired(dense, 0.9 * dense)
    # Without ties the test is Student's own.
    expected = ttest_1samp(-0.1 * dense, 0.0)
    limits = expected.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high, found.p) == pytest.approx((*limits, expected.pvalue))
    assert found.difference.high - found.difference.low < 0.01
    assert verdict_of(found.difference, found.dense, 0.0, found.best) == UNDECIDED
    exactly = paired(dense, dense - 0.05)
    assert exactly.difference.high < 0 and exactly.p < 1e-6


@pytest.mark.parametrize("lost", [0.03, 0.5])
def test_few_items_that_agree_exactly_do_not_tell(lost: float) -> None:
    """Up to five items of equal sign happen by chance in more than 5 % of cases."""
    for n in range(1, 9):
        found = paired(np.full(n, 0.7), np.full(n, 0.7 - lost))
        assert (found.p < SIGNIFICANT) == excludes(found.difference, 0) == (n > 6)
        assert found.difference.high - found.difference.low > lost / 2
    same = student(np.zeros(40), (-1, 1))
    assert same.high == pytest.approx(tango(0, 0, 40).high)
    assert student(np.ones(40), (0, 1)).low == pytest.approx(wilson(40, 40).low)


# Means over tasks

SIZES = [[5, 500], [5, 5, 500], [5, 20, 100, 500], [500] * 3, [8] * 10, [5] * 13, [100] * 6]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_intervals_of_mean_scores_cover_the_truth(sizes: list[int]) -> None:
    rng, n = np.random.default_rng(len(sizes)), np.array(sizes)
    for shares in (np.full(len(n), p) for p in (0.02, 0.2, 0.5, 0.98)):
        found = [
            stratified([of_shares(*pair) for pair in zip(right, sizes, strict=True)], n, (0, 1))
            for right in rng.binomial(n, shares, size=(1500, len(n))).tolist()
        ]
        assert np.mean([not excludes(one, shares.mean()) for one in found]) > 0.93
        if min(sizes) >= 100:
            width = 2 * Z * np.sqrt((shares * (1 - shares) / n).sum()) / len(n)
            near_an_end = abs(shares[0] - 0.5) > 0.4
            assert np.mean([one.high - one.low for one in found]) < (1.4 if near_an_end else 1.06) * width


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_intervals_of_mean_differences_cover_the_truth(sizes: list[int]) -> None:
    rng, n = np.random.default_rng(len(sizes)), np.array(sizes)
    for gained, lost in ((0.0, 0.02), (0.05, 0.05), (0.05, 0.2), (0.02, 0.5), (0.3, 0.3), (0.02, 0.95)):
        drawn = rng.multinomial(n, [gained, lost, 1 - gained - lost], size=(400, len(n)))[:, :, :2].tolist()
        found = [
            stratified([of_pairs(*pair, size) for pair, size in zip(pairs, sizes, strict=True)], n, (-1, 1))
            for pairs in drawn
        ]
        assert np.mean([not excludes(one, gained - lost) for one in found]) > 0.93
        assert all(excludes(one, 0) == (normal_p(one) < SIGNIFICANT) for one in found)


@pytest.mark.parametrize("sizes", [[5, 500], [8] * 6, [30, 60, 120]], ids=str)
def test_intervals_of_mean_graded_differences_cover_the_truth(sizes: list[int]) -> None:
    rng = np.random.default_rng(len(sizes))
    big = [draw(np.random.default_rng(1), 400_000) for draw in GRADED.values()]
    draws = list(GRADED.values()) * 2
    truth = np.mean([np.subtract(*big[place % len(big)][::-1]).mean() for place in range(len(sizes))])
    inside = 0
    for _ in range(400):
        pairs = [draws[place](rng, size) for place, size in enumerate(sizes)]
        parts = [student(pruned - dense, (-1, 1)) for dense, pruned in pairs]
        inside += not excludes(stratified(parts, sizes, (-1, 1)), truth)
    assert inside / 400 > 0.93


# One test, whatever the data


pairs_of_scores = st.integers(1, 40).flatmap(
    lambda n: st.sampled_from(
        [
            st.sampled_from([0.0, 1.0]),
            st.sampled_from([0.0, 0.5, 1.0]),
            st.floats(0, 1, allow_subnormal=False),
            st.floats(0.5, 0.5 + 1e-8),
        ]
    ).flatmap(lambda score: st.tuples(*(st.lists(score, min_size=n, max_size=n) for _ in range(2))))
)


@given(pairs_of_scores, st.sampled_from([0.0, 0.1, 0.25, 0.5]))
@example(([1.0] * 4, [0.0] * 4), 0.0)
@example(([1.0] * 30, [0.25] * 30), 0.25)
@example(([0.9] * 30, [0.0] * 30), 0.0)
@example(([1.0] * 30 + [0.0] * 5, [0.0] * 35), 0.0)
@example(
    (
        [0.5] * 13,
        [0.5] * 7 + [0.5 + 1e-9 * part for part in (4.6006932, 2.631487, 3.6075414, 8.2383651, 8.1719056, 3.1976609)],
    ),
    0.0,
)
def test_interval_p_verdict_and_what_is_retained_agree(scores: tuple[list[float], list[float]], chance: float) -> None:
    found = paired(*(np.array(own) for own in scores))
    agrees(found, chance)
    for part, (least, greatest) in (
        (found.dense, (0, 1)),
        (found.pruned, (0, 1)),
        (found.difference, (-1, 1)),
    ):
        assert least <= part.low <= part.value <= part.high <= greatest
        assert part.high > part.low
    other = paired(*(np.array(own) for own in scores[::-1]))
    assert (other.p, other.difference.value, other.difference.low) == pytest.approx(
        (found.p, -found.difference.value, -found.difference.high), abs=1e-12
    )


def agrees(found: Paired, chance: float) -> None:
    verdict = verdict_of(found.difference, found.dense, chance, found.best)
    assert 0 <= found.p <= 1 and (found.p < SIGNIFICANT) == excludes(found.difference, 0)
    retained = fieller(found.pruned.shifted(-chance), found.dense.shifted(-chance), found.difference)
    if found.dense.low <= chance:
        assert verdict in (NO_SIGNAL, UNDECIDED) and np.isnan(retained).all()
        assert (verdict != NO_SIGNAL) or found.best > chance
        return
    assert (found.p < SIGNIFICANT) == excludes(retained, 1)
    if found.dense.value - chance <= MARGIN:
        assert verdict == NO_SIGNAL
        return
    assert verdict != LOST or (found.p < SIGNIFICANT and found.difference.high < -MARGIN)
    assert (verdict == KEPT) == (found.difference.low >= -MARGIN)
    assert retained.low <= retained.value <= retained.high
    if chance == 0:
        assert retained.low >= 0
