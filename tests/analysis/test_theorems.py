"""How estimates track measured deviations: few positions by hand, and the sentences about where they fail."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.analysis.theorems import TRACKING, breaks, tracking


def hand_made(**columns: list[float]) -> pd.DataFrame:
    """Four positions of one layer; what is not given is exact in every theorem."""
    size = np.array([1.0, 2.0, 2.0, 4.0]) / 100
    exact = {"kl": size, "est_kl": size} | {f"{e}cos_{s}": 1 - size for e in ("", "est_") for s in "hzp"}
    rows = pd.DataFrame({**exact, **columns})
    return rows.assign(
        pruner="wanda", sparsity="0.4", options="", sublayer="mlp", layer=3, protocol="layer", temperature=1.0
    )


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


def test_breaks_name_the_layers_and_who_breaks_alike() -> None:
    def layers(theorem: str, sublayer: str, sparsity: str, weak: set[int], ratios: dict[int, float]) -> pd.DataFrame:
        rows = [
            ("wanda", sparsity, "", sublayer, layer, theorem, 0.5 if layer in weak else 0.95, ratios.get(layer, 1.0), 9)
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
        ]
    )
    assert breaks(tracked) == [
        "Theorem 1 (h), attention (wanda 0.4): rank correlation below 0.9 in layer 2 of 6; "
        "median estimate/measured above 2 in every layer.",
        "Theorem 3 (KL), MLP (wanda 0.4, wanda 2:4): rank correlation below 0.9 in layers 0-1, 5 of 6; "
        "median estimate/measured below 0.5 in layer 3 of 6; median estimate/measured above 2 in layer 0 of 6.",
    ]
