"""Means in which every prompt counts once, against plain numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.analysis.prompt_means import mean_over_prompts


def frame(seed: int = 0) -> pd.DataFrame:
    """Two protocols and three prompts whose continuations have 1, 4 and 30 tokens."""
    chance = np.random.default_rng(seed)
    rows = [
        {"protocol": protocol, "prompt": prompt, "step": step, "kl": chance.exponential(), "cos_h": chance.random()}
        for protocol in ("teacher_forced", "free_running")
        for prompt, length in (("a", 1), ("b", 4), ("c", 30))
        for step in range(length)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=seed)


def by_hand(rows: pd.DataFrame, column: str) -> float:
    per_prompt = [np.mean(rows[column].to_numpy()[rows["prompt"].to_numpy() == name]) for name in ("a", "b", "c")]
    return float(np.mean(per_prompt))


def test_every_prompt_counts_once():
    rows = frame()
    found = mean_over_prompts(rows, ["kl", "cos_h"], ["protocol"])
    assert list(found["protocol"]) == ["free_running", "teacher_forced"]
    for protocol, kl, cosine in found.itertuples(index=False):
        own = rows[rows["protocol"] == protocol]
        assert (kl, cosine) == pytest.approx((by_hand(own, "kl"), by_hand(own, "cos_h")), rel=1e-14)
        # The mean over positions is another number.
        assert kl != pytest.approx(own["kl"].mean(), rel=1e-3)


def test_a_long_continuation_does_not_outweigh_a_short_one():
    rows = pd.DataFrame({"prompt": ["short", *["long"] * 9], "kl": [10.0, *[0.0] * 9]})
    assert mean_over_prompts(rows, ["kl"])["kl"].tolist() == [5.0]


def test_equal_lengths_give_the_mean_over_positions():
    rows = frame()
    rows = rows[rows["step"] == 0]
    assert mean_over_prompts(rows, ["kl"])["kl"].item() == pytest.approx(rows["kl"].mean(), rel=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_and_never_passed_over(bad):
    rows = frame().reset_index(drop=True)
    at = rows.index[(rows["prompt"] == "b") & (rows["protocol"] == "free_running")][0]
    rows.loc[at, "kl"] = bad
    with pytest.raises(ValueError, match=rf"kl is {bad} at protocol free_running, prompt b,"):
        mean_over_prompts(rows, ["cos_h", "kl"], ["protocol"])
    assert len(mean_over_prompts(rows, ["cos_h"], ["protocol"])) == 2


def test_no_rows_have_no_mean():
    assert mean_over_prompts(frame().iloc[:0], ["kl"], ["protocol"]).empty
    assert mean_over_prompts(frame().iloc[:0], ["kl"]).empty


def test_what_is_missing_in_a_key_is_not_lost():
    rows = frame().assign(sparsity=np.nan)
    assert len(mean_over_prompts(rows, ["kl"], ["sparsity"])) == 1
