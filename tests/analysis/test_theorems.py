"""How estimates track measured deviations: few positions by hand, and the sentences about where they fail."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from pipeline.analysis.bootstrap import expanded
from pipeline.analysis.theorems import TRACKING, breaks, tracking, tracks, weighted_rank_correlation


def hand_made(**columns: list[float]) -> pd.DataFrame:
    """Four positions of one layer; what is not given is exact in every theorem."""
    size = np.array([1.0, 2.0, 2.0, 4.0]) / 100
    exact = {"kl": size, "est_kl": size} | {f"{e}cos_{s}": 1 - size for e in ("", "est_") for s in "hzp"}
    rows = pd.DataFrame({**exact, **columns})
    return rows.assign(
        pruner="wanda", sparsity="0.4", options="", sublayer="mlp", layer=3, protocol="layer", temperature=1.0,
        prompt=["a", "a", "b", "b"],
    )  # fmt: skip


def test_tracking_of_few_positions_by_hand() -> None:
    # Ranks of the measured values 1, 2.5, 2.5, 4; of the estimates 1, 3, 2, 4.
    rows = hand_made(est_kl=[0.01, 0.06, 0.04, 0.08], est_cos_z=[0.9] * 4, cos_p=[1.0, 0.98, 0.98, 0.96])
    rows = pd.concat([rows, rows.assign(temperature=0.3, est_kl=0.0), rows.assign(protocol="free_running", kl=9.0)])
    table = tracking(rows)
    assert list(table.columns) == TRACKING and list(table["theorem"]) == ["1 (h)", "1 (z)", "2 (p)", "3 (KL)"]
    found = table.set_index("theorem")
    assert set(found["n"]) == {4} and set(found["layer"]) == {3}
    assert found.loc["1 (h)", ["rank_correlation", "median_ratio"]].tolist() == pytest.approx([1.0, 1.0])
    assert found.loc["3 (KL)", "rank_correlation"] == pytest.approx(4.5 / np.sqrt(4.5 * 5.0))
    assert found.loc["3 (KL)", "median_ratio"] == pytest.approx(2.0)  # of 1, 3, 2 and 2
    assert np.isnan(found.loc["1 (z)", "rank_correlation"])  # the estimate is constant
    assert found.loc["1 (z)", "median_ratio"] == pytest.approx(5.0)  # of 10, 5, 5 and 2.5
    assert found.loc["2 (p)", "median_ratio"] == pytest.approx(1.0)  # of 1, 1 and 1: the first measures nothing


def test_positions_without_a_number_do_not_count() -> None:
    found = tracking(hand_made(kl=[0.01, 0.02, np.inf, 0.04], est_kl=[0.01, np.nan, 0.02, 0.04])).set_index("theorem")
    assert found.loc["3 (KL)", "n"] == 2
    assert found.loc["3 (KL)", ["rank_correlation", "median_ratio"]].tolist() == pytest.approx([1.0, 1.0])
    assert tracking(hand_made().iloc[:0]).empty


def test_the_interval_of_a_correlation_is_over_prompts() -> None:
    rng = np.random.default_rng(2)
    measured = rng.exponential(size=240).round(1)
    estimate = (measured + rng.normal(0, 0.3, 240)).clip(0).round(1)
    prompts = np.repeat([f"p{number}" for number in range(12)], 20)
    rows = pd.concat([hand_made()] * 60, ignore_index=True).assign(kl=measured, est_kl=estimate, prompt=prompts)
    found = tracking(rows).set_index("theorem").loc["3 (KL)"]
    assert found.rank_correlation == pytest.approx(spearmanr(measured, estimate).statistic)
    assert found.low < found.rank_correlation < found.high
    # Drawing prompts again, rank correlations are scipy's.
    draws = np.random.default_rng(3).integers(12, size=(400, 12))
    rows = np.arange(240).reshape(12, 20)[draws].reshape(400, -1)
    again = [spearmanr(measured[own], estimate[own]).statistic for own in rows]
    assert (found.low, found.high) == pytest.approx(np.quantile(again, expanded(12)), abs=0.012)
    alone = tracking(hand_made().assign(prompt="a"))
    assert alone[["low", "high"]].isna().all(axis=None) and set(tracks(alone)) == {"cannot be told"}


def test_weighted_ranks_are_those_of_repeated_values() -> None:
    rng = np.random.default_rng(4)
    values, counts = rng.integers(6, size=(30, 2)), rng.integers(4, size=(20, 30))
    expected = [spearmanr(*np.repeat(values, own, axis=0).T).statistic for own in counts]
    assert weighted_rank_correlation(values.astype(float), counts) == pytest.approx(expected)


def test_breaks_name_the_layers_and_who_breaks_alike() -> None:
    def correlation(weak: bool) -> tuple[float, float, float]:
        return (0.5, 0.4, 0.6) if weak else (0.95, 0.92, 0.98)

    def layers(theorem: str, sublayer: str, sparsity: str, weak: set[int], ratios: dict[int, float]) -> pd.DataFrame:
        rows = [
            ("wanda", sparsity, "", sublayer, layer, theorem, *correlation(layer in weak), ratios.get(layer, 1.0), 9)
            for layer in range(6)
        ]
        return pd.DataFrame(rows, columns=TRACKING)

    tracked = pd.concat(
        [
            layers("3 (KL)", "mlp", "0.4", {0, 1, 5}, {0: 2.5, 3: 0.4}),
            layers("3 (KL)", "mlp", "2:4", {0, 1, 5}, {0: 3.5, 3: 0.3}),
            layers("3 (KL)", "mlp", "4:8", set(), {}),
            layers("1 (h)", "attention", "0.4", {2}, dict.fromkeys(range(6), 2.01)),
            layers("2 (p)", "attention", "0.4", set(), {0: float("nan"), 1: 2.0, 2: 0.5}),
            layers("2 (p)", "mlp", "0.4", set(), {}).assign(low=[0.91, 0.91, 0.8, 0.8, 0.91, 0.91]),
        ]
    )
    assert breaks(tracked) == [
        "Theorem 1 (h), attention (wanda 0.4): rank correlation below 0.9 in layer 2 of 6; "
        "median estimate/measured above 2 in every layer.",
        "Theorem 2 (p), MLP (wanda 0.4): rank correlation undecided about 0.9 in layers 2-3 of 6.",
        "Theorem 3 (KL), MLP (wanda 0.4, wanda 2:4): rank correlation below 0.9 in layers 0-1, 5 of 6; "
        "median estimate/measured below 0.5 in layer 3 of 6; median estimate/measured above 2 in layer 0 of 6.",
    ]
