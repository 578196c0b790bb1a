"""Predicting what is kept: the fit and what it may see."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up_settings import COLUMNS, FAMILIES, kept_of, means, settings
from scipy.stats import spearmanr

from pipeline.analysis.prediction import (
    PREDICTORS,
    REPRESENTATIONS,
    TooLittle,
    cross_validate,
    fit,
)
from pipeline.analysis.prediction_accuracy import accuracy, compete


def test_a_planted_relation_is_found_at_settings_that_were_not_fitted():
    measured = settings()
    model = fit(measured, kept_of(measured), COLUMNS)
    others = settings(("sparsegpt",), each=5, seed=7)
    both = model.predict(others).merge(kept_of(others), on=["pruner", "sparsity", "task", "kind"])
    assert len(both) == 15
    assert (both["predicted"] - both["kept"]).abs().max() < 0.1
    out = cross_validate(measured, kept_of(measured), COLUMNS)
    assert spearmanr(means(out)["kept"], means(out)["predicted"]).statistic > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_more_divergence_is_never_predicted_to_keep_more(seed: int):
    measured = settings(seed=seed)
    luck = kept_of(measured).assign(kept=np.random.default_rng(seed).uniform(-0.2, 1.1, 3 * len(measured)))
    model = fit(measured, luck, COLUMNS)
    before = model.predict(measured)["predicted"]
    for name in COLUMNS:
        more = model.predict(measured.assign(**{name: 2 * measured[name]}))["predicted"]
        assert (more <= before + 1e-12).all()


def test_a_left_out_pruner_is_never_seen():
    names = (*FAMILIES, "random_attn")
    measured = settings(names)
    kept = kept_of(measured, noise=0.05)
    before = cross_validate(measured, kept, COLUMNS).set_index(["pruner", "sparsity", "task", "kind"])
    for changed in ("wanda", "random_attn"):
        other = kept.assign(kept=kept["kept"].where(kept["pruner"] != changed, 1 - kept["kept"]))
        after = cross_validate(measured, other, COLUMNS).set_index(before.index.names).loc[before.index]
        own = before["family"] == changed
        for name in ("predicted", "low", "high"):
            pd.testing.assert_series_equal(after.loc[own, name], before.loc[own, name], check_exact=True)
            assert not np.array_equal(after.loc[~own, name], before.loc[~own, name])


def test_shuffled_targets_are_not_predicted():
    measured = settings()
    kept, found = kept_of(measured), []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shuffled = kept.groupby(["kind", "task"], sort=False)["kept"].transform(
            lambda own, rng=rng: rng.permutation(own)
        )
        out = means(cross_validate(measured, kept.assign(kept=shuffled), COLUMNS))
        found.append(spearmanr(out["kept"], out["predicted"]).statistic)
    # Zero or below it: where the left-out pruner keeps much, the others keep less than on average.
    assert np.mean(found) < 0.1 and max(found) < 0.6


def test_the_dense_model_keeps_everything():
    measured = settings()
    dense = measured.head(1).assign(pruner="dense", sparsity="0", **dict.fromkeys(COLUMNS, 0.0))
    found = fit(measured, kept_of(measured, 0.1), COLUMNS).predict(dense)
    assert len(found) == 5 and (found[["predicted", "low", "high"]] == 1.0).all(axis=None)


@pytest.mark.parametrize(
    ("families", "each", "said"),
    [(FAMILIES[:2], 4, "8 settings of 2 pruners"), (FAMILIES[:3], 1, "3 settings of 3 pruners"), ((), 0, "0 settings")],
)
def test_too_little_data_is_refused(families: tuple[str, ...], each: int, said: str):
    measured = settings(FAMILIES)
    kept = kept_of(measured[measured["pruner"].isin(families) & (measured["sparsity"].astype(int) <= each)])
    for judge in (fit, cross_validate):
        with pytest.raises(TooLittle, match=f"{said}.* needs at least 6 settings of 3 pruners"):
            judge(measured, kept, COLUMNS)


def test_settings_that_keep_more_than_all_do_not_carry_a_fit_away():
    measured = settings()
    gained = fit(measured, kept_of(measured).assign(kept=1.02), COLUMNS).predict(measured)
    assert gained["predicted"].between(0.9, 1).all()
    far = measured.assign(kl=1e3 * measured["kl"])
    partly = kept_of(measured).assign(kept=np.tile(np.where(measured["kl"] > 1, 0.98, 1.06), 3))
    assert fit(measured, partly, COLUMNS).predict(far)["predicted"].max() < 0.999


def test_a_baseline_that_lacks_a_kind_takes_nothing_from_the_others():
    measured = settings(FAMILIES[:3])
    kept = kept_of(measured, 0.05)
    few = kept[(kept["kind"] == "generative") | (kept["sparsity"].astype(int) <= 2)]
    lacking = measured.assign(perplexity=measured["perplexity"].where(measured["sparsity"] != "1"))
    found = compete(lacking, few, {name: PREDICTORS[name] for name in (REPRESENTATIONS, "perplexity")})
    taking_part = found.groupby("kind")["predictor"].unique().map(set).to_dict()
    assert taking_part == {"generative": {REPRESENTATIONS, "perplexity"}, "multiple_choice": {REPRESENTATIONS}}


def test_tasks_of_one_pruner_each_tell_nothing_about_others():
    measured = settings(FAMILIES[:3])
    kept = kept_of(measured, 0.05)
    own = kept[(kept["kind"] == "generative") & (kept["task"] == "copying")]
    with pytest.raises(TooLittle, match="for several pruners"):
        accuracy(compete(measured, own.assign(task=own["pruner"])))


def test_a_kind_with_too_little_data_has_no_prediction():
    measured = settings()
    kept = kept_of(measured)
    few = kept[(kept["kind"] == "generative") | kept["pruner"].isin(FAMILIES[:2])]
    assert set(fit(measured, few, COLUMNS).predict(measured)["kind"]) == {"generative"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_settings_without_a_number_are_left_alone(value: float):
    measured = settings()
    kept = kept_of(measured, 0.05)
    broken = measured["pruner"].isin(["wanda"])
    partly = measured.assign(kl=measured["kl"].where(~broken, value))
    found = fit(partly, kept, COLUMNS).predict(partly)
    expected = fit(measured[~broken], kept, COLUMNS).predict(measured[~broken])
    assert found.loc[found["pruner"] == "wanda", ["predicted", "low", "high"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(found[found["pruner"] != "wanda"].reset_index(drop=True), expected)
    assert "wanda" not in set(cross_validate(partly, kept, COLUMNS)["pruner"])


def test_a_task_of_one_pruner_alone_is_not_predicted_from_the_others():
    measured = settings()
    kept = kept_of(measured)
    kept = kept[(kept["task"] != "plurals") | (kept["pruner"] == "wanda")]
    out = cross_validate(measured, kept, COLUMNS)
    alone = out[out["task"] == "plurals"]
    assert len(alone) == 4 and alone["predicted"].isna().all()
    mean, single = (means(out), out[(out["task"] == "copying") & (out["kind"] == "generative")])
    both = mean.merge(single, on=["pruner", "sparsity"])
    np.testing.assert_allclose(both["predicted_x"], both["predicted_y"])
    np.testing.assert_allclose(both["kept_x"], both["kept_y"])


def test_intervals_hold_measured_shares():
    inside, width = [], []
    for seed in range(3):
        measured = settings(tuple(f"pruner{letter}" for letter in "abcdefgh"), each=3, seed=seed)
        out = cross_validate(measured, kept_of(measured, noise=0.08, seed=seed), COLUMNS)
        inside.append(out["kept"].between(out["low"], out["high"]))
        width.append(means(out)["high"] - means(out)["low"])
    assert 0.93 < pd.concat(inside).mean() < 1
    assert pd.concat(width).median() < 0.6


# --- features and targets ----------------------------------------------------------------------------------------
