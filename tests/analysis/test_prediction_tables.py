"""Predictions from tables: features and targets, accuracy beside baselines, the command, and the figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_figures import canvas_of, drawn, missing
from figure_tables import (
    SETTINGS,
    SETUPS,
    comparisons_table,
    fill,
    jobs_table,
    measures_table,
    perplexity_rows,
    prompt_mean,
    save,
    scores_table,
    trajectories_table,
)
from made_up_settings import COLUMNS, kept_of, means, settings
from scipy.stats import spearmanr

from pipeline.analysis.prediction import (
    PREDICTORS,
    REPRESENTATIONS,
    TooLittle,
    cross_validate,
    features,
    targets,
)
from pipeline.analysis.prediction_accuracy import accuracy, compete
from pipeline.analysis.prediction_data import BASELINES
from pipeline.evaluate.comparison import MEAN, pool
from pipeline.plot import style
from pipeline.study import predict
from pipeline.tables.choice import choose
from pipeline.tables.read import Tables, load


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("filled"), layers=1)


def tables_of(outputs: Path) -> Tables:
    return load(outputs, choose(outputs))


def test_features_are_those_of_the_tables(tmp_path: Path):
    scores = scores_table()
    scores = pd.concat([scores, perplexity_rows(scores)], ignore_index=True)
    measures, tokens = measures_table(layers=2, count=4), trajectories_table(count=4)
    save(tmp_path, scores=scores, measures=measures, trajectories=tokens, jobs=jobs_table())
    found = features(tables_of(tmp_path)).set_index(["pruner", "sparsity"])
    assert found.index[0] == ("dense", "0") and (found.iloc[0].drop(["family", "options"]) == 0).all()
    assert set(found.index[1:]) == set(SETUPS)
    row = found.loc[("attn_drop", "8")]
    own = measures.query("pruner == 'attn_drop' and sparsity == '8' and protocol == 'teacher_forced'")
    own = own[own["temperature"] == 1.0]
    assert row["kl"] == pytest.approx(prompt_mean(own, "kl"))
    ranked = own.sort_values("entropy")["kl"]
    fifth = len(ranked) / 5
    assert row["kl_sure"] == pytest.approx(ranked.head(round(fifth)).mean(), rel=0.05)
    assert row["kl_unsure"] == pytest.approx(ranked.tail(round(fifth)).mean(), rel=0.05)
    assert row["cosine"] == pytest.approx(1 - prompt_mean(own, "cos_h"))
    assert row["perplexity"] == pytest.approx(np.log(2**1.0))
    assert row["removed"] == pytest.approx(0.1)
    # Four texts, which part at steps 2, 3, 4 and 5.
    assert row["parting"] == pytest.approx(4.5 / (3 + 4 + 5 + 6 + 0.5))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_measure_stays_broken_in_the_mean(tmp_path: Path, value: float):
    measures = measures_table(SETUPS[:1], layers=1, count=4)
    final = measures.index[measures["protocol"] == "teacher_forced"]
    measures.loc[final[measures.loc[final, "temperature"] == 1.0][3], ["kl", "entropy", "cos_h"]] = value, value, np.nan
    found = features(tables_of(save(tmp_path, measures=measures, jobs=jobs_table()))).set_index("pruner")
    assert not np.isfinite(found.loc["shortgpt", ["kl", "cosine", "kl_sure", "kl_unsure"]].astype(float)).any(axis=None)


def test_texts_that_never_part_count_with_their_length(tmp_path: Path):
    tokens = trajectories_table([("wanda", "0.4")], count=4)
    length = tokens.groupby("prompt").size()
    save(tmp_path, trajectories=tokens.assign(pruned_token=tokens["dense_token"]), jobs=jobs_table())
    found = features(tables_of(tmp_path)).set_index(["pruner", "sparsity"])
    assert found.loc[("wanda", "0.4"), "parting"] == pytest.approx(0.5 / (length.sum() + 0.5))
    assert np.isnan(found.loc[("wanda", "0.4"), "kl"])


def test_targets_are_what_is_retained_of_tasks_with_a_signal(tmp_path: Path):
    table = comparisons_table()
    blind = (table["task"] == "facts") & (table["kind"] == "generative")
    table.loc[blind, "chance"] = 0.9
    found = targets(tables_of(save(tmp_path, comparisons=table, jobs=jobs_table())))
    assert set(found["task"]) == {"arithmetic", "copying", "cloze", "entailment", "science"}
    both = found.merge(table, on=["pruner", "sparsity", "task", "kind"])
    assert len(both) == len(found) == 5 * len(SETUPS)
    np.testing.assert_allclose(both["kept"], both["retained"])
    np.testing.assert_allclose(both["weight"], 100 * (both["dense"] - both["chance"]) ** 2)


def test_the_mean_of_what_is_kept_is_what_is_kept_of_the_mean(filled: Path):
    tables = tables_of(filled)
    out = cross_validate(features(tables), targets(tables), COLUMNS)
    for (pruner, sparsity), own in tables.comparisons.groupby(["pruner", "sparsity"]):
        pooled = pool(own).set_index("kind")
        mine = out[(out["pruner"] == pruner) & (out["sparsity"] == sparsity) & (out["task"] == MEAN)].set_index("kind")
        for kind in ("generative", "multiple_choice"):
            assert mine.loc[kind, "kept"] == pytest.approx(pooled.loc[kind, "retained"])


# --- accuracy ----------------------------------------------------------------------------------------------------


def test_predictors_compete_on_the_same_settings():
    measured = settings()
    measured.loc[measured["sparsity"] == "4", "perplexity"] = np.nan
    rows = compete(measured, kept_of(measured, 0.02))
    assert set(rows["predictor"]) == set(PREDICTORS)
    for _, own in rows.groupby("predictor"):
        assert set(own["sparsity"]) == {"1", "2", "3"} and len(own) == 15 * 5
    without = compete(measured.assign(perplexity=np.nan), kept_of(measured))
    assert set(without["predictor"]) == set(PREDICTORS) - {"perplexity"} and set(without["sparsity"]) == set("1234")
    with pytest.raises(TooLittle):
        compete(measured.assign(kl=np.nan), kept_of(measured))


def test_accuracy_is_that_of_the_predictions():
    measured = settings()
    rows = compete(measured, kept_of(measured, 0.02))
    found = accuracy(rows).set_index(["kind", "predictor"])
    assert len(found) == 2 * len(PREDICTORS)
    for kind in ("generative", "multiple_choice"):
        own = means(rows[rows["predictor"] == "cosine"], kind)
        row, best = found.loc[(kind, "cosine")], found.loc[(kind, "representations")]
        assert row["error"] == pytest.approx((own["kept"] - own["predicted"]).abs().mean())
        assert row["rank"] == pytest.approx(spearmanr(own["kept"], own["predicted"]).statistic)
        assert row["error_low"] < row["error"] < row["error_high"]
        assert (row["pruners"], row["settings"]) == (5, 20)
        assert best["rank"] > 0.9 > row["rank"] and best["rank_low"] <= best["rank"] <= best["rank_high"]
        assert row["more"] == pytest.approx(row["error"] - best["error"]) and row["more_low"] > 0 == best["more"]
        single = rows[(rows["predictor"] == "cosine") & (rows["kind"] == kind) & (rows["task"] != MEAN)]
        assert row["task_error"] == pytest.approx((single["kept"] - single["predicted"]).abs().mean())
        assert row["task_rank"] == pytest.approx(spearmanr(single["kept"], single["predicted"]).statistic)
    pd.testing.assert_frame_equal(accuracy(rows).set_index(found.index.names), found)


def test_a_constant_prediction_has_no_rank_correlation():
    measured = settings()
    rows = cross_validate(measured, kept_of(measured), COLUMNS).assign(predictor="representations", predicted=0.5)
    assert accuracy(rows)["rank"].isna().all()


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_predicts_what_was_not_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fill(tmp_path, layers=1)
    compared = comparisons_table()
    left = (compared["pruner"] == "wanda") & (compared["sparsity"] == "4:8")
    half = (compared["pruner"] == "mlp_drop") & (compared["sparsity"] == "8") & (compared["kind"] != "generative")
    save(tmp_path, comparisons=compared[~left & ~half])
    assert predict.main(["--outputs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Predicted from other pruners" in said and "Not evaluated" in said and SETTINGS in said
    assert all(name in said for name in ("representations", "cosine", "parameters"))
    found = pd.read_parquet(tmp_path / "tables" / "predictions.parquet")
    pairs = set(found[["pruner", "sparsity", "kind"]].itertuples(index=False, name=None))
    wanda, mlp = ("wanda", "4:8"), ("mlp_drop", "8")
    assert pairs == {(*wanda, "generative"), (*wanda, "multiple_choice"), (*mlp, "multiple_choice")}
    assert set(found["model"]) == {"tiny-lm"} and found[["predicted", "low", "high"]].notna().all(axis=None)
    save(tmp_path, comparisons=compared)
    assert predict.main(["--outputs", str(tmp_path)]) == 0
    assert "nothing left to predict" in capsys.readouterr().out
    assert not (tmp_path / "tables" / "predictions.parquet").exists()


def test_the_command_says_what_to_do_where_it_cannot_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert predict.main(["--outputs", str(tmp_path)]) == 1
    assert "no tables to draw from" in capsys.readouterr().err
    fill(tmp_path, SETUPS[:2], layers=1)
    assert predict.main(["--outputs", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "2 settings of 1 pruners" in said and "python -m pipeline.main -m experiment=fig27" in said
    assert predict.main(["--outputs", str(tmp_path), "--settings", "nonsense"]) == 2
    assert "no settings contain 'nonsense'" in capsys.readouterr().err


# --- the figure --------------------------------------------------------------------------------------------------


def test_the_figure_shows_predictions_of_unseen_pruners_against_measurements(
    filled: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(style, "DPI", 40)
    result, data = drawn(filled, "fig27")
    tables = tables_of(filled)
    rows = compete(
        features(tables), targets(tables), {name: PREDICTORS[name] for name in (REPRESENTATIONS, *BASELINES)}
    )
    assert list(data.groupby("kind")["source"].nunique()) == [2, 2]
    for (kind, source), own in data.groupby(["kind", "source"]):
        expected = means(rows[rows["predictor"] == source], str(kind))
        both = own.merge(expected, on=["pruner", "sparsity"])
        assert len(both) == len(own) == len(SETUPS)
        np.testing.assert_allclose(both["measured_percent"], 100 * both["kept"], atol=1e-6)
        np.testing.assert_allclose(both["predicted_percent"], 100 * both["predicted"], atol=1e-6)
    least = accuracy(rows).query("predictor != 'representations'")
    best = least.loc[least.groupby("kind")["error"].idxmin()].set_index("kind")["predictor"]
    shown = data[data["source"] != "representations"].drop_duplicates("kind").set_index("kind")["source"]
    assert shown.to_dict() == best.to_dict()
    page = canvas_of(result, data)
    generative = data[(data["kind"] == "generative") & (data["source"] == "representations")]
    points = [line for line in page.axes[0].lines if line.get_marker() not in ("", "None", None)]
    heights = sorted(float(y) for line in points for y in np.asarray(line.get_ydata()))
    assert heights == pytest.approx(sorted(generative["predicted_percent"]))
    assert f"{generative['rank'].iloc[0]:.2f}".replace("-", "\u2212") in page.axes[0].get_title(loc="left")


def test_the_figure_needs_several_pruners(tmp_path: Path):
    said = missing(fill(tmp_path, SETUPS[:2], layers=1), "fig27")
    assert said.endswith("to get the data, run: python -m pipeline.main -m experiment=fig27") and "1 pruners" in said
