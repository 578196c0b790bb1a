"""Comparisons with dense: statistics against independent computations, coverage on simulated items, and verdicts."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from pipeline.comparison import COLUMNS, MARGIN, compare, pool
from pipeline.intervals import Interval, Z, fieller, mcnemar, resample, stratified, tango, wilson


def items(task: str, scores: object, kind: str = "generative") -> pd.DataFrame:
    values = np.asarray(scores, dtype=float)
    return pd.DataFrame({"task": task, "kind": kind, "item": range(len(values)), "score": values})


def scores_of(frame: pd.DataFrame, chance: float = 0.0, higher_is_better: bool = True) -> pd.DataFrame:
    """The main metric of every task, and one that is not the main one."""
    tasks = frame[["task", "kind"]].drop_duplicates()
    main = tasks.assign(metric="acc", main=True, higher_is_better=higher_is_better, chance=chance)
    return pd.concat([main, main.assign(metric="other", main=False, chance=0.9)], ignore_index=True)


def compared(dense: pd.DataFrame, pruned: pd.DataFrame, chance: float = 0.0) -> pd.DataFrame:
    return compare(dense, pruned, scores_of(dense, chance), scores_of(dense, chance))


def of(task: str, dense: object, pruned: object, chance: float = 0.0) -> pd.Series:
    """The row of one task."""
    frame = compared(items(task, dense), items(task, pruned), chance)
    return frame[frame["task"] == task].iloc[0]


def table(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Items of the dense and of the pruned model with these counts."""
    dense = np.repeat([1, 0, 1, 0], [both, gained, lost, neither])
    return dense, np.repeat([1, 1, 0, 0], [both, gained, lost, neither])


# Tests and intervals


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 3), (4, 9), (0, 12), (40, 21)])
def test_mcnemar_sums_the_exact_binomial(gained: int, lost: int) -> None:
    changed = gained + lost
    shares = [Fraction(math.comb(changed, count), 2**changed) for count in range(changed + 1)]
    # Every outcome that is at most as likely as the one seen.
    assert mcnemar(gained, lost) == pytest.approx(float(sum(share for share in shares if share <= shares[gained])))
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def likeliest(gained: int, lost: int, n: int, delta: float) -> float:
    """The share of lost items under a true difference, by search for the greatest multinomial likelihood."""
    shares = np.linspace(max(0.0, -delta), (1 - delta) / 2, 2_000_001)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        others = n - gained - lost
        fit = sum(
            k * np.log(q) for k, q in ((lost, shares), (gained, shares + delta), (others, 1 - 2 * shares - delta)) if k
        )
    return float(shares[np.nanargmax(fit)])


@pytest.mark.parametrize(("gained", "lost", "n"), [(4, 9, 44), (1, 7, 20), (2, 0, 12), (5, 5, 11), (0, 15, 60)])
def test_ends_of_the_paired_interval_are_where_the_score_test_rejects(gained: int, lost: int, n: int) -> None:
    found = tango(gained, lost, n)
    for end, sign in ((found.low, 1), (found.high, -1)):
        share = likeliest(gained, lost, n, end)
        variance = n * (2 * share + end - end**2)
        assert (gained - lost - n * end) / math.sqrt(variance) == pytest.approx(sign * Z, abs=2e-3)


def test_paired_intervals_are_symmetric_and_never_collapse() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        n = int(rng.integers(1, 60))
        gained, lost, _ = (int(count) for count in rng.multinomial(n, rng.dirichlet([0.4] * 3)))
        one, other = tango(gained, lost, n), tango(lost, gained, n)
        assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-9)
        assert -1 <= one.low <= one.value <= one.high <= 1 and one.high - one.low > Z**2 / (n + Z**2)
    # Without a changed item the interval has a closed form.
    assert tango(0, 0, 50).high == pytest.approx(Z**2 / (50 + Z**2))


@pytest.mark.parametrize(
    ("n", "shares"),
    [
        (50, (0.5, 0.1, 0.2, 0.2)),
        (20, (0.6, 0.05, 0.15, 0.2)),
        (100, (0.02, 0.0, 0.6, 0.38)),
        (30, (0.3, 0.2, 0.2, 0.3)),
    ],
)
def test_intervals_of_pairs_and_ratios_cover_the_truth(n: int, shares: tuple[float, ...]) -> None:
    truth, ratio = shares[1] - shares[2], (shares[0] + shares[1]) / (shares[0] + shares[2])
    inside, retained, draws = 0, 0, 3000
    for both, gained, lost, _ in np.random.default_rng(2).multinomial(n, shares, size=draws).tolist():
        difference, dense, pruned = tango(gained, lost, n), wilson(both + lost, n), wilson(both + gained, n)
        inside += difference.low <= truth <= difference.high
        found = fieller(pruned, dense, difference)
        retained += found.low <= ratio <= found.high
    assert 0.935 < inside / draws < 0.975
    assert 0.935 < retained / draws < 0.98


@pytest.mark.parametrize("n", [8, 20, 60])
def test_bootstrap_intervals_cover_the_truth(n: int) -> None:
    """Items that mostly keep their score and else get any other, as those of retrieval do."""
    rng, inside, width, draws = np.random.default_rng(3), 0, 0.0, 600
    for _ in range(draws):
        dense, anew = rng.beta(0.7, 0.7, n), rng.beta(0.7, 1.4, n)
        pruned = np.where(rng.random(n) < 0.6, dense, anew)
        found = resample(dense, pruned, rng)[2]
        inside += found.low <= 0.4 * (1 / 3 - 1 / 2) <= found.high
        width += (found.high - found.low) / draws
    assert 0.92 < inside / draws < 0.995
    # Not bought by needless width: the standard deviation of such differences is 0.33.
    assert width < 1.6 * 2 * Z * 0.33 / math.sqrt(n)


@pytest.mark.parametrize(
    ("tasks", "n", "gained", "lost"),
    [(10, 8, 0.05, 0.05), (13, 100, 0.0, 0.08), (10, 50, 0.05, 0.2), (3, 16, 0.02, 0.3)],
)
def test_intervals_of_means_over_tasks_cover_the_truth(tasks: int, n: int, gained: float, lost: float) -> None:
    counts = np.random.default_rng(4).multinomial(n, [gained, lost, 1 - gained - lost], size=(2000, tasks)) / n
    inside = 0
    for up, down, _ in np.moveaxis(counts, 2, 1):
        found = stratified(up - down, np.sqrt(up + down - (up - down) ** 2), np.full(tasks, n), (-1, 1))
        inside += found.low <= gained - lost <= found.high
    assert 0.93 < inside / 2000 < 0.985


def test_means_of_equal_tasks_without_changes_are_one_large_task() -> None:
    assert stratified([0.0] * 5, [0.0] * 5, [20] * 5, (-1, 1)).high == pytest.approx(tango(0, 0, 100).high)


def test_ratio_excludes_one_exactly_where_the_difference_excludes_zero() -> None:
    rng, decided = np.random.default_rng(5), 0
    for _ in range(1500):
        n = int(rng.integers(2, 40))
        both, gained, lost, _ = (int(count) for count in rng.multinomial(n, rng.dirichlet([0.5] * 4)))
        for chance in (0.0, 0.25):
            dense, pruned = wilson(both + lost, n).shifted(-chance), wilson(both + gained, n).shifted(-chance)
            difference = tango(gained, lost, n)
            found = fieller(pruned, dense, difference)
            if dense.low <= 0:
                assert math.isnan(found.value)
                continue
            decided += 1
            assert found.low <= found.value <= found.high
            assert (found.high < 1 - 1e-9) == (difference.high < -1e-9)
            assert (found.low > 1 + 1e-9) == (difference.low > 1e-9)
    assert decided > 500


# Comparisons


def test_a_row_says_what_became_of_a_task() -> None:
    dense, pruned = table(both=50, gained=2, lost=20, neither=28)
    row = of("copying", dense, pruned, chance=0.25)
    assert (row.n, row.dense, row.pruned, row.metric, row.method) == (100, 0.7, 0.52, "acc", "mcnemar")
    assert (row.difference, row.low, row.high) == pytest.approx(tuple(tango(2, 20, 100)))
    assert row.p == mcnemar(2, 20) and row.verdict == "lower"
    assert (
        row.retained == pytest.approx((0.52 - 0.25) / (0.7 - 0.25))
        and row.retained_low < row.retained < row.retained_high < 1
    )


@pytest.mark.parametrize(
    ("counts", "chance", "verdict"),
    [
        ((200, 0, 0, 200), 0.0, "no change"),
        ((5, 0, 0, 5), 0.0, "too few items"),
        ((1, 0, 0, 0), 0.0, "too few items"),
        ((1, 0, 0, 0), 0.25, "too few items"),  # one right answer is not above chance, but could not be
        ((0, 0, 1, 0), 0.0, "too few items"),
        ((40, 30, 5, 25), 0.0, "higher"),
        ((0, 0, 0, 80), 0.0, "no signal"),
        ((15, 10, 10, 65), 0.25, "no signal"),
        ((5, 0, 22, 73), 0.25, "no signal"),
        ((200, 20, 20, 160), 0.0, "no change"),
        ((100, 20, 20, 60), 0.0, "too few items"),
    ],
)
def test_no_change_and_too_few_items_look_different(counts: tuple[int, ...], chance: float, verdict: str) -> None:
    row = of("copying", *table(*counts), chance=chance)
    assert row.verdict == verdict
    assert math.isnan(row.retained) == (row.dense_low <= chance)
    if verdict == "no change":
        assert -MARGIN <= row.low <= 0 <= row.high <= MARGIN


def test_verdicts_follow_from_the_intervals_and_turn_with_the_models() -> None:
    rng = np.random.default_rng(6)
    for _ in range(60):
        counts = [int(count) for count in rng.multinomial(int(rng.integers(1, 400)), rng.dirichlet([0.5] * 4))]
        both, gained, lost, neither = counts
        one, other = of("a", *table(*counts)), of("a", *table(both, lost, gained, neither))
        assert one.difference == pytest.approx(-other.difference) and one.p == other.p
        assert (one.verdict == "higher") == (one.low > 0)
        if one.verdict == "lower":
            assert one.high < 0 and other.verdict == "higher" and one.retained_high < 1
        if one.verdict == "too few items" and one.low <= 0 <= one.high:
            assert max(-one.low, one.high) > MARGIN


def test_graded_items_are_resampled_and_repeatable() -> None:
    rng = np.random.default_rng(7)
    dense = rng.random(80)
    pruned = np.clip(dense - 0.15 * rng.random(80), 0, 1)
    row = of("nfcorpus", dense, pruned)
    assert row.method == "bootstrap" and row.verdict == "lower" and row.p < 0.01
    # As wide as the normal interval, and as what a change of two unseen items by one would add.
    normal = 1.96 * (pruned - dense).std(ddof=1) / math.sqrt(80)
    assert normal < (row.high - row.low) / 2 < normal + 2 / 80
    alone = compared(items("nfcorpus", dense), items("nfcorpus", pruned))
    more = (
        pd.concat([items("a", dense), items("nfcorpus", dense)]),
        pd.concat([items("a", pruned), items("nfcorpus", pruned)]),
    )
    beside = compared(*more)
    pd.testing.assert_frame_equal(alone[:1], beside[beside["task"] == "nfcorpus"].reset_index(drop=True))
    same = of("nfcorpus", dense, dense)
    assert same.p == 1 and same.low < 0 < same.high and same.verdict == "no change"
    few = of("nfcorpus", dense[:12], dense[:12])
    assert few.p == 1 and few.verdict == "too few items"
    assert of("nfcorpus", [0.5], [0.5]).verdict == "too few items"


def test_means_over_tasks_count_tasks_alike() -> None:
    sizes = {"a": (30, 1, 9, 0), "b": (100, 0, 40, 60), "c": (19, 0, 1, 0)}
    pairs = {task: table(*counts) for task, counts in sizes.items()}
    dense = pd.concat([items(task, pair[0]) for task, pair in pairs.items()])
    pruned = pd.concat([items(task, pair[1]) for task, pair in pairs.items()])
    frame = compared(dense, pruned)
    assert list(frame.columns) == COLUMNS and list(frame["task"]) == ["a", "b", "c", "mean"]
    mean, tasks = frame.iloc[3], frame.iloc[:3]
    assert mean.difference == pytest.approx(tasks["difference"].mean()) and mean.n == 40 + 200 + 20
    assert mean.low < mean.difference < mean.high < 0 and mean.verdict == "lower" and mean.p < 0.05
    assert mean.retained == pytest.approx(tasks["pruned"].mean() / tasks["dense"].mean())
    # The standard error of the mean difference from resampled items within tasks.
    rng = np.random.default_rng(8)
    drawn = [[rng.choice(pair[1] - pair[0], len(pair[0])).mean() for pair in pairs.values()] for _ in range(2000)]
    assert (mean.high - mean.low) / 2 / Z == pytest.approx(np.mean(drawn, axis=1).std(), rel=0.35)
    pd.testing.assert_frame_equal(pool(frame), frame[3:].reset_index(drop=True))


def test_one_task_is_its_own_mean_and_kinds_stay_apart() -> None:
    both = [
        pd.concat([items("a", scores), items("a", scores[::-1], "multiple_choice")]) for scores in table(5, 1, 8, 6)
    ]
    frame = compared(*both)
    assert list(zip(frame["kind"], frame["task"], strict=True)) == [
        ("generative", "a"),
        ("multiple_choice", "a"),
        ("generative", "mean"),
        ("multiple_choice", "mean"),
    ]
    pd.testing.assert_frame_equal(frame[:2].drop(columns="task"), frame[2:].drop(columns="task").reset_index(drop=True))


def test_perplexities_and_undefined_items_are_left_out() -> None:
    dense, pruned = items("a", [1, 0, 1, math.nan]), items("a", [1, 1, math.nan, 0])
    frame = compare(dense, pruned, scores_of(dense), scores_of(pruned))
    assert set(frame["n"]) == {2}
    words = scores_of(items("wiki", [1], "perplexity"), higher_is_better=False)
    with_words = compare(dense, pruned, pd.concat([scores_of(dense), words]), pd.concat([scores_of(pruned), words]))
    pd.testing.assert_frame_equal(frame, with_words)
    none = compare(dense[:0], pruned[:0], words, words)
    assert none.empty and list(none.columns) == COLUMNS
    large = items("a", [30.0, 4.0])
    assert compared(large, large).empty


def test_other_items_are_refused() -> None:
    dense = items("copying", [1, 0, 1])
    for pruned in (items("copying", [1, 0]), dense.assign(item=dense["item"] + 1), dense[:0]):
        with pytest.raises(ValueError, match="task copying: .* evaluate both with the same task settings"):
            compared(dense, pruned)
    with pytest.raises(ValueError, match="two scores for one item"):
        compared(dense, pd.concat([dense, dense[:1]]))
    shuffled = dense.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(compared(dense, dense), compared(dense, shuffled))


def test_ratios_of_exact_numbers() -> None:
    exact = fieller(Interval(0.3, 0.3, 0.3), Interval(0.6, 0.6, 0.6), Interval(-0.3, -0.3, -0.3))
    assert tuple(exact) == pytest.approx((0.5, 0.5, 0.5))
