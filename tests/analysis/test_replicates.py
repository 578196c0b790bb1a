"""Replicates of a variant: means of their comparisons, with intervals that stay on the scale of scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate.comparison import compare
from pipeline.tables.replicates import average_comparisons
from pipeline.tables.variants import VARIANT

shares = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=4)


def comparison(dense: float, pruned: float, seed: int) -> pd.DataFrame:
    """Compare two models that answer so many of 12 items rightly."""
    draws = np.random.default_rng(seed)
    sides = [(draws.random(12) < share).astype(float) for share in (dense, pruned)]
    frames = [pd.DataFrame({"task": "t", "kind": "generative", "item": range(12), "score": own}) for own in sides]
    main = {"task": ["t"], "kind": "generative", "metric": "acc", "main": True, "averaged": True}
    scores = pd.DataFrame(main | {"chance": 0.0, "data": "0a1b2c3d"})
    return compare(*frames, scores, scores).assign(**dict.fromkeys(VARIANT, "x"))


@settings(deadline=None, max_examples=40)
@given(shares)
def test_means_of_replicates_and_their_intervals_stay_on_the_scale(replicates):
    rows = pd.concat([comparison(*own, seed) for seed, own in enumerate(replicates)], ignore_index=True)
    own = rows[rows["task"] == "t"]
    row = average_comparisons(own).iloc[0]
    assert row["replicates"] == len(replicates)
    for name, ends, least in (
        ("dense", ("dense_low", "dense_high"), 0),
        ("pruned", ("pruned_low", "pruned_high"), 0),
        ("difference", ("low", "high"), -1),
    ):
        assert row[name] == pytest.approx(own[name].mean())
        assert least <= row[ends[0]] <= row[name] + 1e-9 and row[name] - 1e-9 <= row[ends[1]] <= 1
