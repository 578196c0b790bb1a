"""Agreement of distributions over positions against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from pipeline.measure.over_positions import AGREEMENT_COLUMNS, agreement


def accepted(p: np.ndarray, q: np.ndarray, rng: np.random.Generator, draws: int = 200_000) -> float:
    """Speculative decoding by its definition: a token drawn from the draft q is kept with probability min(1, p / q)."""
    tokens = rng.choice(len(q), size=draws, p=q)
    return float((rng.random(draws) < p[tokens] / q[tokens]).mean())


def test_agreement_against_definitions():
    rng = np.random.default_rng(0)
    z, moved = rng.normal(size=(60, 9)), rng.normal(size=(60, 9))
    p, q = softmax(z, -1), softmax(moved, -1)
    rows = {"kl": entropy(p, q, axis=-1), "tv": np.abs(p - q).sum(-1) / 2, "flip": z.argmax(-1) != moved.argmax(-1)}
    frame = pd.DataFrame(rows).astype(float)
    measures = pd.concat(
        [
            frame.assign(protocol="layer", temperature=1.0, kl=99.0),
            frame.assign(protocol="teacher_forced", temperature=1.0),
            frame.assign(protocol="free_running", temperature=0.5, tv=0.25),
        ]
    )
    found = agreement(measures)
    assert list(found) == AGREEMENT_COLUMNS and list(found["protocol"]) == ["teacher_forced", "free_running"]
    row = found.iloc[0]
    kl = np.sort(rows["kl"])
    assert (row.n, row.kl_max, row.kl_mean) == (60, kl[-1], pytest.approx(kl.mean()))
    assert row.kl_median == pytest.approx((kl[29] + kl[30]) / 2)
    # Linear interpolation between neighbours, at 0.9 and 0.99 of the 59 steps between 60 values.
    assert row.kl_p90 == pytest.approx(kl[53] + 0.1 * (kl[54] - kl[53]))
    assert row.kl_p99 == pytest.approx(kl[58] + 0.41 * (kl[59] - kl[58]))
    assert row.top1_agreement == pytest.approx((z.argmax(-1) == moved.argmax(-1)).mean())
    assert row.tv == pytest.approx(1 - np.minimum(p, q).sum(-1).mean())
    drawn = np.mean([accepted(a, b, rng, 4000) for a, b in zip(p, q, strict=True)])
    assert row.acceptance == pytest.approx(drawn, abs=0.005)
    assert found.iloc[1].acceptance == 0.75


def test_without_final_states_there_is_nothing():
    empty = pd.DataFrame({"protocol": ["layer"], "temperature": [1.0], "kl": [1.0], "tv": [0.1], "flip": [0.0]})
    assert agreement(empty).empty
