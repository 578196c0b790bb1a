"""Comparisons with dense: statistics against independent computations, and verdicts."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluate.comparison import COLUMNS, compare, pool
from pipeline.evaluate.intervals import Interval, Z, fieller, mcnemar_p, stratified, student, tango, wilson
from pipeline.evaluate.verdict import MARGIN, verdict


def items(task: str, scores: object, kind: str = "generative") -> pd.DataFrame:
    values = np.asarray(scores, dtype=float)
    return pd.DataFrame({"task": task, "kind": kind, "item": range(len(values)), "score": values})


def scores_of(frame: pd.DataFrame, chance: float = 0.0, higher_is_better: bool = True) -> pd.DataFrame:
    """The main metric of every task, and one that is not the main one."""
    tasks = frame[["task", "kind"]].drop_duplicates()
    main = tasks.assign(metric="acc", main=True, averaged=higher_is_better, chance=chance, data="0a1b2c3d")
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
        changed = 2 * share + end
        away = sign * (gained - lost - n * end) - (1 - abs(end) / changed)
        assert away / math.sqrt(n * (changed - end**2)) == pytest.approx(Z, abs=2e-3)


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


def test_ratio_excludes_one_exactly_where_the_difference_excludes_zero() -> None:
    rng, decided = np.random.default_rng(5), 0
    for _ in range(1500):
        n = int(rng.integers(2, 40))
        both, gained, lost, _ = (int(count) for count in rng.multinomial(n, rng.dirichlet([0.5] * 4)))
        scores, difference = [wilson(both + changed, n) for changed in (lost, gained)], tango(gained, lost, n)
        for chance in (0.0, 0.25):
            dense, pruned = (score.shifted(-chance) for score in scores)
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
    assert row.p == mcnemar_p(2, 20) and row.verdict == "lost"
    assert (
        row.retained == pytest.approx((0.52 - 0.25) / (0.7 - 0.25))
        and row.retained_low < row.retained < row.retained_high < 1
    )


@pytest.mark.parametrize(
    ("counts", "chance", "word"),
    [
        ((200, 0, 0, 200), 0.0, "kept"),
        ((5, 0, 0, 5), 0.0, "cannot be told"),
        ((1, 0, 0, 0), 0.0, "cannot be told"),
        ((1, 0, 0, 0), 0.25, "cannot be told"),  # one right answer is not above chance, but could not be
        ((0, 0, 1, 0), 0.0, "cannot be told"),
        ((40, 30, 5, 25), 0.0, "kept"),
        ((0, 0, 0, 80), 0.0, "no signal"),
        ((15, 10, 10, 65), 0.25, "no signal"),
        ((5, 0, 22, 73), 0.25, "no signal"),
        # Dense is clearly above chance, but has no more to lose than the margin.
        ((0, 0, 30, 970), 0.0, "no signal"),
        ((250, 0, 40, 710), 0.25, "no signal"),
        ((0, 0, 60, 940), 0.0, "cannot be told"),
        ((0, 0, 90, 910), 0.0, "lost"),
        ((200, 20, 20, 160), 0.0, "kept"),
        ((100, 20, 20, 60), 0.0, "cannot be told"),
        ((700, 0, 12, 288), 0.0, "kept"),  # -1.2 points for certain, and for certain less than five
        ((63, 0, 9, 28), 0.0, "cannot be told"),  # -9 [-16, -4.8]: less for certain, perhaps by less than five
        ((60, 0, 12, 28), 0.0, "lost"),  # -12 [-20, -7]
    ],
)
def test_verdicts_follow_from_interval_and_margin(counts: tuple[int, ...], chance: float, word: str) -> None:
    row = of("copying", *table(*counts), chance=chance)
    assert row.verdict == word
    assert math.isnan(row.retained) == (row.dense_low <= chance)
    if row.dense_low > chance and row.dense - chance > MARGIN:
        assert (word == "kept") == (row.low >= -MARGIN) and (word == "lost") == (row.high < -MARGIN)


@pytest.mark.parametrize(
    ("value", "low", "high", "limit", "word"),
    [
        (-0.01, -0.018, -0.002, -0.05, "kept"),
        (-0.05, -0.05, -0.01, -0.05, "kept"),
        (-0.04, -0.06, -0.02, -0.05, "cannot be told"),
        (0.02, -0.06, 0.1, -0.05, "cannot be told"),
        (-0.2, -0.3, -0.06, -0.05, "lost"),
        (-0.1, -0.15, -0.05, -0.05, "cannot be told"),
        (0.94, 0.91, 0.97, 0.9, "kept"),
        (0.93, 0.88, 0.98, 0.9, "cannot be told"),
        (0.8, 0.7, 0.89, 0.9, "lost"),
        (math.nan, math.nan, math.nan, 0.9, "cannot be told"),
        (0.8, math.nan, math.nan, 0.9, "cannot be told"),
    ],
)
def test_a_word_comes_from_the_whole_interval(value: float, low: float, high: float, limit: float, word: str) -> None:
    assert verdict(Interval(value, low, high), limit) == word


def test_verdicts_err_in_one_direction_at_most_as_often_as_intervals() -> None:
    """A true loss of exactly the margin is called kept, or lost, in about a fortieth of samples."""
    rng, n, words = np.random.default_rng(9), 200, {"kept": 0, "lost": 0, "cannot be told": 0}
    for _ in range(2000):
        _, gained, lost, _ = rng.multinomial(n, [0.6, 0.04, 0.04 + MARGIN, 0.27])
        words[verdict(tango(int(gained), int(lost), n), -MARGIN)] += 1
    assert max(words["kept"], words["lost"]) / 2000 < 0.035


def test_graded_items_get_the_paired_t_test() -> None:
    rng = np.random.default_rng(7)
    dense = rng.random(80)
    pruned = np.clip(dense - 0.15 * rng.random(80), 0, 1)
    row = of("nfcorpus", dense, pruned)
    assert row.method == "student" and row.verdict == "lost" and row.p < 0.01
    assert (row.difference, row.low, row.high) == tuple(student(pruned - dense, (-1, 1)))
    assert (row.dense, row.dense_low, row.dense_high) == tuple(student(dense, (0, 1)))
    same = of("nfcorpus", dense, dense)
    assert same.p == 1 and same.low < 0 < same.high and same.verdict == "kept"
    few = of("nfcorpus", dense[:12], dense[:12])
    assert few.p == 1 and few.verdict == "cannot be told"
    assert of("nfcorpus", [0.5], [0.5]).verdict == "cannot be told"


def test_means_over_tasks_count_tasks_alike() -> None:
    sizes = {"a": (30, 1, 9, 0), "b": (100, 0, 40, 60), "c": (19, 0, 1, 0)}
    pairs = {task: table(*counts) for task, counts in sizes.items()}
    dense = pd.concat([items(task, pair[0]) for task, pair in pairs.items()])
    pruned = pd.concat([items(task, pair[1]) for task, pair in pairs.items()])
    frame = compared(dense, pruned)
    assert list(frame.columns) == COLUMNS and list(frame["task"]) == ["a", "b", "c", "mean"]
    mean, tasks = frame.iloc[3], frame.iloc[:3]
    assert mean.difference == pytest.approx(tasks["difference"].mean()) and mean.n == 40 + 200 + 20
    assert mean.low < mean.difference < mean.high < 0 and mean.verdict == "lost" and mean.p < 0.05
    assert mean.retained == pytest.approx(tasks["pruned"].mean() / tasks["dense"].mean())
    parts = [Interval(row.difference, row.low, row.high) for row in tasks.itertuples()]
    assert (mean.difference, mean.low, mean.high) == tuple(stratified(parts, tasks["n"], (-1, 1)))
    pd.testing.assert_frame_equal(pool(frame), frame[3:].reset_index(drop=True))


def test_means_of_many_items_are_as_sure_as_resampled_ones() -> None:
    pairs = {"a": table(300, 30, 90, 80), "b": table(700, 20, 280, 400)}
    mean = compared(*(pd.concat([items(task, pair[n]) for task, pair in pairs.items()]) for n in (0, 1))).iloc[-1]
    rng = np.random.default_rng(8)
    drawn = [[rng.choice(pair[1] - pair[0], len(pair[0])).mean() for pair in pairs.values()] for _ in range(4000)]
    # A little wider, for the correction of one item.
    assert (mean.high - mean.low) / 2 / Z == pytest.approx(1.04 * np.mean(drawn, axis=1).std(), rel=0.04)


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


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.25])
def test_no_result_is_a_negative_zero_and_nothing_less_than_all_is_lost(chance: float) -> None:
    for counts in ((0, 0, 40, 0), (0, 0, 26, 12), (10, 0, 30, 0), (40, 0, 0, 0), (4, 0, 36, 0)):
        dense, pruned = table(*counts)
        for first, second in ((dense, pruned), (0.9 * dense, 0.9 * pruned)):
            frame = compared(items("a", first), items("a", second), chance).select_dtypes("number")
            assert not (np.signbit(frame) & (frame == 0)).any(axis=None)
            if chance == 0:
                assert (frame["retained_low"] >= 0).all() and (frame["retained_high"] <= 2).all()
