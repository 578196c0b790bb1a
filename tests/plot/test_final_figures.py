"""Figures of final states and of the options: their numbers against pandas, and pages without collisions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import figure_tables as tables_of
import numpy as np
import pandas as pd
import pytest
from choice import some
from figure_tables import (
    SETUPS,
    fill,
    measures_table,
    option_tokens_table,
    options_table,
    save,
    trajectories_table,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from scipy.stats import norm
from scipy.stats import t as student

from pipeline.analysis.bootstrap import interval
from pipeline.analysis.first_difference import first_differences
from pipeline.analysis.strata import split
from pipeline.plot import scales, style
from pipeline.plot.base import Selection
from pipeline.plot.discovery import resolve
from pipeline.plot.figure_csv import from_csv, to_csv
from pipeline.plot.token_labels import visible
from pipeline.tables.choice import choose
from pipeline.tables.read import Tables, load
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import Variant, preferred, select_preferred

NAMES = ("fig02", "fig08", "fig12", "fig23", "fig24", "fig25")
FEW = (("attn_drop", "8"), ("wanda", "4:8"), ("rtn", "0"))
LAYERS = 2
SOME_PAGES = some("pages", NAMES)


def shown(outputs: Path, name: str) -> tuple[Selection, pd.DataFrame]:
    """What a figure selects, and its data as its CSV holds them.

    Raises:
        MissingData: if the tables do not suffice.
    """
    stamps = tuple((path.name, path.stat().st_mtime_ns) for path in sorted((outputs / "tables").iterdir()))
    selection = resolve([name]).popitem()[1].select(loaded(outputs, stamps))
    return selection, from_csv(to_csv(selection.data))


@lru_cache(1)
def loaded(outputs: Path, stamps: tuple[tuple[str, int], ...]) -> Tables:
    """The tables, read once for all figures of a test."""
    return load(outputs, choose(outputs))


def caption_of(selection: Selection) -> str:
    return " ".join(selection.notes)


def canvas_of(outputs: Path, name: str) -> Canvas:
    selection, data = shown(outputs, name)
    with style.look():
        return resolve([name]).popitem()[1].draw(data, selection.title, caption_of(selection))


def at(protocol: str, setups: Sequence[tuple[str, str]] = FEW) -> pd.DataFrame:
    return measures_table(setups, LAYERS, 4).query(f"protocol == '{protocol}' and temperature == 1.0")


def overlaps(canvas: Canvas) -> list[tuple[str, str]]:
    """Pairs of texts inside the panels, tick labels of the x axes, and the caption that cover each other."""
    # Ticks beyond the limits of an axis are not drawn.
    ticks = {ax: [tick.label1 for tick in ax.xaxis._update_ticks()] for ax in canvas.axes}
    panels = [[*ax.texts, ax.title, ax.xaxis.label, *ticks[ax]] for ax in canvas.axes]
    texts = [text for panel in panels for text in panel if text.get_text() and text.get_visible()]
    texts += canvas.texts
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    pairs = [(one, other) for place, one in enumerate(boxes) for other in boxes[place + 1 :]]
    return [(one[0], other[0]) for one, other in pairs if one[1].padded(-0.5).overlaps(other[1].padded(-0.5))]


def test_bootstrap_resamples_whole_groups() -> None:
    groups = np.repeat(np.arange(8), 50)
    means = np.random.default_rng(3).normal(0, 1, 8)
    low, high = interval(means[groups], groups)
    drawn = means[np.random.default_rng(9).integers(8, size=(4000, 8))].mean(axis=1)
    # As wide as Student's interval of eight means, within the noise of the resampling.
    tail = norm.sf(math.sqrt(8 / 7) * student.ppf(0.975, 7))
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [tail, 1 - tail])), abs=0.08)
    assert high - low == pytest.approx(2 * student.ppf(0.975, 7) * means.std(ddof=1) / math.sqrt(8), rel=0.08)
    assert high - low > 3 * np.subtract(*interval(means[groups], np.arange(400))[::-1])
    assert interval(means[groups], groups) == (low, high) != interval(means[groups], groups, seed=1)
    narrow = interval(means[groups], groups, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert np.isnan(interval([1.0, 2.0], ["a", "a"])).all()
    assert interval([2.0, 2.0, 2.0], list("abb")) == (2.0, 2.0)
    # Groups of different size: the mean over all values drawn, so between the two groups' means.
    assert interval([0.0, 1.0, 1.0, 1.0], list("abbb")) == (0.0, 1.0)
    total = interval([1.0, 1.0], ["a", "b"], statistic=lambda values, weights: weights @ values)
    assert total == (2.0, 2.0)


def test_bootstrap_of_few_groups_covers_the_truth() -> None:
    rng, inside = np.random.default_rng(4), 0
    for _ in range(400):
        low, high = interval(rng.normal(0, 1, 8), np.arange(8))
        inside += low <= 0 <= high
    assert inside / 400 > 0.91


def test_strata_hold_a_fifth_each_and_ties_stay_together() -> None:
    strata, bounds = split(np.arange(100.0), 1)
    assert np.bincount(strata)[1:].tolist() == [20] * 5
    np.testing.assert_allclose(bounds, [0, 19.8, 39.6, 59.4, 79.2, 99])
    falling, down = split(np.arange(100.0), -1)
    assert falling[0] == 5 and falling[-1] == 1 and down.tolist() == sorted(down, reverse=True)
    sure, _ = split(np.array([0.1, 0.5, 1, 1, 1, 1, 1, 1, 1, 1]), 1)
    assert len(set(sure[2:])) == 1


def test_confidence_strata_are_those_of_pandas(tmp_path: Path) -> None:
    result, data = shown(fill(tmp_path, FEW, LAYERS), "fig24")
    rows = at("teacher_forced").query("pruner == 'wanda'")
    quintile = pd.qcut(rows["entropy"].rank(ascending=False), 5, labels=list("12345")).astype(str)
    expected = rows.groupby(quintile)[["kl", "est_kl", "flip", "entropy"]].agg(["mean", "size", "min", "max"])
    drawn = data.query("pruner == 'wanda' and quantity == 'entropy'").set_index("stratum")
    for column in ("kl", "est_kl", "flip"):
        np.testing.assert_allclose(drawn[column], expected[column]["mean"], rtol=1e-6)
    np.testing.assert_allclose(drawn["remainder"], drawn["kl"] - drawn["est_kl"], atol=1e-8)
    assert drawn["n"].tolist() == expected["kl"]["size"].tolist()
    assert (drawn["lower"] <= expected["entropy"]["min"] + 1e-6).all()
    assert (drawn["upper"] >= expected["entropy"]["max"] - 1e-6).all()
    assert drawn["upper"].is_monotonic_decreasing  # the least confident stratum is the one of highest entropy
    part = rows[quintile == "1"]
    assert tuple(drawn.loc["1", ["kl_low", "kl_high"]]) == pytest.approx(interval(part["kl"], part["prompt"]))
    assert (data["kl_low"] <= data["kl"]).all() and (data["flip"] <= data["flip_high"]).all()
    assert "95% bootstrap interval over prompts" in caption_of(result) and "temperature 1" in caption_of(result)


def test_strata_without_teacher_forced_rows_come_from_the_last_layer(tmp_path: Path) -> None:
    layer = measures_table(FEW, LAYERS, 4).query("protocol == 'layer'")
    outputs = save(fill(tmp_path, FEW, LAYERS), measures=layer)
    result, data = shown(outputs, "fig24")
    last = at("layer").query("pruner == 'wanda' and layer == 1")
    mine = data.query("pruner == 'wanda' and quantity == 'top1'")
    assert mine["n"].sum() == len(last)
    assert np.average(mine["kl"], weights=mine["n"]) == pytest.approx(last["kl"].mean(), rel=1e-6)
    assert "last layer (1)" in caption_of(result)
    caption = caption_of(shown(outputs, "fig02")[0])
    assert "The free-running protocol was not measured." in caption and "last layer (1)" in caption


def test_shared_bounds_are_written_at_the_ticks(tmp_path: Path) -> None:
    _, data = shown(fill(tmp_path, [("wanda", "4:8")], LAYERS), "fig24")
    labels = [label.get_text() for label in canvas_of(tmp_path, "fig24").axes[6].get_xticklabels()]
    bounds = data.query("quantity == 'top1'").sort_values("stratum")
    expected = [bounds["lower"].iloc[0], *bounds["upper"]]
    assert [float(label) for label in labels] == pytest.approx(expected, abs=0.006)
    fill(tmp_path, FEW, LAYERS)  # each of these has confidences of its own
    assert canvas_of(tmp_path, "fig24").axes[6].get_xticklabels()[0].get_text() == "lowest"


def test_diagram_shows_the_medians_of_both_protocols(tmp_path: Path) -> None:
    _, data = shown(fill(tmp_path, FEW, LAYERS), "fig02")
    medians = data.set_index(["pruner", "protocol", "quantity"])["median"]
    for protocol in ("teacher_forced", "free_running"):
        rows = at(protocol).query("pruner == 'attn_drop'")
        for space in "hzp":
            expected = (1 - rows.groupby("prompt")[f"cos_{space}"].mean()).median()
            assert medians["attn_drop", protocol, f"1 - cos {space}"] == pytest.approx(expected, rel=1e-5)
        assert medians["attn_drop", protocol, "KL"] == pytest.approx(
            rows.groupby("prompt")["kl"].mean().median(), rel=1e-6
        )
        assert medians["attn_drop", protocol, "flip"] == pytest.approx(
            100 * rows.groupby("prompt")["flip"].mean().median(), rel=1e-6
        )
    canvas = canvas_of(tmp_path, "fig02")
    words = " ".join(text.get_text() for ax in canvas.axes for text in ax.texts)
    assert f"{medians['attn_drop', 'teacher_forced', '1 - cos h']:.2g}" in words
    assert f"{medians['attn_drop', 'teacher_forced', 'flip']:.0f}% flipped" in words
    limits = {ax.get_xlim() for ax in canvas.axes[:3]}
    assert len(limits) == 1  # the three cosines compare


def test_feedback_compares_the_positions_of_both_protocols(tmp_path: Path) -> None:
    measures = measures_table(FEW, LAYERS, 4)
    lost = (measures["protocol"] == "free_running") & (measures["prompt"] == "open-1")
    _, data = shown(save(fill(tmp_path, FEW, LAYERS), measures=measures[~lost]), "fig23")
    for protocol in ("teacher_forced", "free_running"):
        rows = at(protocol).query("pruner == 'wanda' and prompt != 'open-1'")
        drawn = data.query(f"pruner == 'wanda' and protocol == '{protocol}' and quantity == '1 - cos p'").set_index(
            "step"
        )
        expected = 1 - rows.groupby("step")["cos_p"].median()[drawn.index]
        np.testing.assert_allclose(drawn["median"], expected, rtol=1e-5)
        assert drawn["n"].max() == 3
    assert set(data["first_difference"]) == {3.0}  # prompts part at steps 2, 3, 4 and 5: the lower median


def test_first_differences_of_equal_and_of_absent_texts() -> None:
    same = trajectories_table([("wanda", "0")], 4).assign(options="")
    assert first_differences(same)["first_difference"].tolist() == [np.inf]
    empty = first_differences(pd.DataFrame())
    assert empty.empty and list(empty.columns) == ["pruner", "sparsity", "options", "first_difference"]
    assert empty["first_difference"].dtype == float


def test_six_panels_show_one_line_for_each_kind(tmp_path: Path) -> None:
    _, data = shown(fill(tmp_path, SETUPS, LAYERS), "fig12")
    lines = set(data[["pruner", "sparsity"]].itertuples(index=False, name=None))
    assert lines == {("attn_drop", "8"), ("wanda", "4:8"), ("sparsegpt", "2:4"), ("rtn", "0")}
    rows = at("free_running", SETUPS).query("pruner == 'rtn'").groupby("step")
    for quantity, column in (("rms dz", "rms_dz"), ("var dz", "var_uniform"), ("KL", "kl")):
        drawn = data.query(f"pruner == 'rtn' and quantity == '{quantity}'").set_index("step")
        np.testing.assert_allclose(drawn["median"], rows[column].median()[drawn.index], rtol=1e-6)
        np.testing.assert_allclose(drawn["high"], rows[column].quantile(0.75)[drawn.index], rtol=1e-6)
    assert [len(ax.lines) for ax in canvas_of(tmp_path, "fig12").axes] == [4] * 6
    with pytest.raises(MissingData, match="there is no attention dropper and no weight-only quantization"):
        shown(fill(tmp_path, [("wanda", "0.4")], LAYERS), "fig12")
    no_quantization = caption_of(shown(fill(tmp_path, FEW[:2], LAYERS), "fig12")[0])
    assert "Not measured: weight-only quantization." in no_quantization


def test_options_of_the_first_probe_prompt(tmp_path: Path) -> None:
    tokens = option_tokens_table(SETUPS, 6)
    later = tokens.assign(prompt="choice-9", origin="trial", logp_dense=-9.0)
    outputs = save(fill(tmp_path, SETUPS, LAYERS), option_tokens=pd.concat([later, tokens]))
    selection, data = shown(outputs, "fig08")
    assert set(data["prompt"]) == {"choice-0"}
    assert "choice-0, the first probe prompt that the dense model answers correctly" in caption_of(selection)
    assert data["pruner"].unique().tolist() == ["attn_drop", "mlp_drop", "shortgpt"]
    assert set(data.loc[data["pruner"] != "shortgpt", "sparsity"]) == {"8"}
    canvas = canvas_of(outputs, "fig08")
    probabilities, options = canvas.axes[2:4]  # the second row, of attn_drop
    mine = data.query("pruner == 'attn_drop'")
    bars = [patch.get_height() for patch in probabilities.patches]
    top = mine[mine["role"] == "top"]
    np.testing.assert_allclose(bars, np.exp([*top["logp_dense"], *top["logp_pruned"]]), rtol=1e-6)
    likelihoods = mine.loc[mine["role"] == "option", "logp_dense"]
    np.testing.assert_allclose(options.lines[0].get_ydata(), likelihoods, rtol=1e-6)
    assert len(options.patches) == 1 and mine["gold"].sum() == 1
    assert probabilities.get_ylim() == canvas.axes[0].get_ylim()


def test_options_are_of_an_item_that_the_dense_model_gets_right(tmp_path: Path) -> None:
    tokens = option_tokens_table(FEW, 6)  # choice-0 and choice-4 are right; from choice-4 on, they are not probes
    outputs = save(fill(tmp_path, FEW, LAYERS), option_tokens=tokens.query("prompt != 'choice-0'"))
    selection, data = shown(outputs, "fig08")
    assert set(data["prompt"]) == {"choice-4"} and "answers no probe prompt correctly" in caption_of(selection)
    save(outputs, option_tokens=tokens.query("prompt in ('choice-1', 'choice-2')"))
    selection, data = shown(outputs, "fig08")
    assert set(data["prompt"]) == {"choice-1"} and "answers none of the 2 items correctly" in caption_of(selection)


def test_tokens_are_written_visibly() -> None:
    assert [visible(text) for text in (" A", "\n", "", "\u65e5", "\x00")] == [
        "\u2423A", "\u21b5", "\u2205", "\ufffd", "\ufffd",
    ]  # fmt: skip
    assert visible(" unbelievable") == "\u2423unbelie\u2026"


def test_subspace_means_over_draws_before_prompts(tmp_path: Path) -> None:
    options = options_table(FEW, 4)
    ragged = options[(options["set"] != "control") | (options["prompt"] != "choice-1") | (options["draw"] < 2)]
    _, data = shown(save(fill(tmp_path, FEW, LAYERS), options=ragged), "fig25")
    rows = ragged.query("temperature == 1.0 and pruner == 'wanda' and set == 'control'")
    drawn = data.query("pruner == 'wanda' and set == 'control'").set_index("quantity")
    kept = 100 * rows["mass_pruned"] / rows["mass_dense"]
    for quantity, column in (
        ("KL", rows["kl"]),
        ("flip", 100 * rows["flip"]),
        ("mass", kept),
        ("rank", rows["rank_pruned"] - rows["rank_dense"]),
        ("margin", rows["margin_pruned"] - rows["margin_dense"]),
    ):
        per_prompt = column.groupby(rows["prompt"]).mean()
        assert drawn.loc[quantity, "mean"] == pytest.approx(per_prompt.mean(), rel=1e-6)
        expected = interval(per_prompt, per_prompt.index)
        assert tuple(drawn.loc[quantity, ["low", "high"]]) == pytest.approx(expected, rel=1e-6)
        assert drawn.loc[quantity, "n"] == 4
    means = data.query("quantity == 'KL' and pruner == 'wanda'").set_index("set")["mean"]
    assert means["options"] < means["control"] < means["vocabulary"]


@pytest.mark.parametrize("setups", [SETUPS[3:], (("iterative_joint_drop", "8"), *FEW[:2])])
def test_pages_are_tidy(tmp_path: Path, setups: Sequence[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tables_of.UNITS, "iterative_joint_drop", "sublayer")
    fill(tmp_path, setups, LAYERS)
    for name in SOME_PAGES:
        canvas = canvas_of(tmp_path, name)
        FigureCanvasAgg(canvas).draw()
        for panel in canvas.axes:
            assert panel.texts if not panel.axison else any(np.isfinite(line.get_ydata()).any() for line in panel.lines)
        box = canvas.get_tightbbox()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= canvas.get_figwidth() and box.y1 <= canvas.get_figheight()
        assert not overlaps(canvas), name


def test_exact_zeros_and_few_prompts_are_drawn_without_warnings(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fill(tmp_path, [("wanda", "0")], LAYERS)
        for name in SOME_PAGES:
            if name == "fig12":  # of several kinds of compression
                continue
            FigureCanvasAgg(canvas_of(tmp_path, name)).draw()
        zeros = shown(tmp_path, "fig24")[1]
        assert not zeros[["kl", "est_kl", "remainder", "flip", "kl_low", "kl_high"]].to_numpy().any()
        save(fill(tmp_path, FEW, LAYERS), measures=measures_table(FEW, LAYERS, 1))
        for name in ("fig02", "fig23", "fig24"):
            FigureCanvasAgg(canvas_of(tmp_path, name)).draw()
    data = shown(tmp_path, "fig24")[1]
    assert data["kl_low"].isna().all() and np.isfinite(data["kl"]).all()  # no interval over a single prompt
    caption = caption_of(shown(fill(tmp_path, [*FEW, ("wanda", "0")], LAYERS), "fig24")[0])
    assert "Not shown, identical to the dense model at every position: wanda 0." in caption


def test_preferred_sparsities_come_first() -> None:
    variants = [Variant(*pair) for pair in SETUPS]
    words = [variant.label for variant in preferred(variants, ("8", "4:8"))]
    assert words == ["shortgpt 0.2", "attn_drop 8", "mlp_drop 8", "wanda 4:8", "sparsegpt 2:4", "rtn"]
    kept, left = select_preferred([Variant("wanda", word) for word in ("0.4", "2:4", "4:8")], ("4:8",), 2)
    assert [variant.sparsity for variant in kept] == ["0.4", "4:8"] and left == [Variant("wanda", "2:4")]


def test_axes_of_either_sign_survive_zero() -> None:
    ax = Canvas().subplots()
    scales.signed_axis(ax, "x", [-3.0, 0.0, 0.02, 40.0])
    low, high = ax.get_xlim()
    places = ax.transData.transform([(value, 0.5) for value in (-3.0, 0.0, 0.02, 40.0)])[:, 0]
    assert low < -3 and high > 40 and (np.diff(places) > 0).all() and 0.0 in ax.get_xticks()
    scales.signed_axis(ax, "y", [0.5, 40.0])
    assert ax.get_yscale() == "log" and (np.asarray(ax.get_yticks()) > 0).all()
    scales.signed_axis(ax, "y", [0.1003, 6.0], ticks=3)  # the axis begins below its least value
    assert ax.get_yticks().tolist() == [0.1, 1.0]
    # No round number lies near these.
    for value in (0.128, 0.29, 6.4, 1.3e-5):
        scales.signed_axis(ax, "y", [value], ticks=3)
        low, high = ax.get_ylim()
        assert ax.get_yticks().size and all(low < place < high for place in ax.get_yticks())
    scales.signed_axis(ax, "y", [0.0, 0.0])
    assert ax.get_ylim()[0] < 0 < ax.get_ylim()[1]
