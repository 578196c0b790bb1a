"""Figures of the layer protocol: their numbers against pandas, what they leave out, and pages without collisions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_figures import tiles_of
from figure_tables import measures_table
from layer_figures import FEW, LAYERS, PROMPTS, canvas_of, caption_of, shown, tables_of
from matplotlib.figure import Figure as Canvas

from pipeline.analysis import theorems
from pipeline.analysis.theorems import breaks, tracking
from pipeline.plot import style
from pipeline.plot.scales import Decades
from pipeline.plot.single_variant import first_sublayer, single_variant
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import Variant

SOME_MAP, SOME_PANELS = "fig20", "fig19 panels"  # with the longest labels


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "DPI", 40)


def positions(setup: tuple[str, str], temperature: float = 1.0) -> pd.DataFrame:
    """The attention rows of one variant under the layer protocol."""
    rows = measures_table(FEW, LAYERS, PROMPTS).query("protocol == 'layer' and sublayer == 'attention'")
    rows = rows[(rows["pruner"] == setup[0]) & (rows["sparsity"] == setup[1])]
    return rows[rows["temperature"] == temperature]


def with_twin(setups: Sequence[tuple[str, str]] = FEW) -> pd.DataFrame:
    """Measures in which dropping attention is the same under both pruners that drop it, as it really is."""
    measures = measures_table(setups, LAYERS, PROMPTS)
    layer = measures["protocol"] == "layer"
    attention = measures[layer & (measures["pruner"] == "shortgpt") & (measures["sublayer"] == "attention")]
    twin = attention.assign(pruner="attn_drop", sparsity="4", job="attn_drop4")
    return pd.concat([measures[~layer | (measures["pruner"] != "attn_drop")], twin], ignore_index=True)


def test_dropped_sublayers_and_changed_weights_have_a_figure_each(tmp_path: Path) -> None:
    tables = tables_of(tmp_path)
    _, dropped = shown(tables, "fig04")
    _, changed = shown(tables, "fig13")
    assert set(dropped["pruner"]) == {"shortgpt", "attn_drop"} and set(changed["pruner"]) == {"wanda", "rtn"}
    rows = positions(("wanda", "0.4")).query("layer == 2")
    point = changed.query("pruner == 'wanda' and sublayer == 'attention' and layer == 2 and space == 'z'").iloc[0]
    of_prompts = 1 - rows.groupby("prompt")["cos_z"].mean()
    assert point["median_deviation"] == pytest.approx(of_prompts.median())
    assert point["low_deviation"] == pytest.approx(of_prompts.quantile(0.25))
    assert point["high_deviation"] == pytest.approx(of_prompts.quantile(0.75))
    assert len(canvas_of(tables, "fig04").axes) == 3  # shortgpt has attention and MLP, attn_drop attention alone
    assert len(canvas_of(tables, "fig13").axes) == 4


@pytest.mark.parametrize(("name", "setups"), [("fig04", FEW[2:]), ("fig13", FEW[:2])])
def test_one_kind_of_pruner_alone_leaves_the_other_figure_out(
    tmp_path: Path, name: str, setups: Sequence[tuple[str, str]]
) -> None:
    with pytest.raises(MissingData, match="no pruner that"):
        shown(tables_of(tmp_path, setups), name)


@pytest.mark.parametrize("name", ["fig04", "fig05", "fig06", "fig22"])
def test_pruners_that_drop_the_same_are_drawn_once(tmp_path: Path, name: str) -> None:
    apart = shown(tables_of(tmp_path / "apart"), name)
    same = shown(tables_of(tmp_path / "same", measures=with_twin()), name)
    assert "attn_drop" in set(apart[1]["pruner"]) and "Equal" not in caption_of(apart[0])
    assert "attn_drop" not in set(same[1]["pruner"])
    assert "Identical curves drawn once: attention of shortgpt 0.2 and attn_drop 4." in caption_of(same[0])


def test_temperatures(tmp_path: Path) -> None:
    tables = tables_of(tmp_path)
    selection, data = shown(tables, "fig11")
    assert sorted(data["temperature"].unique()) == [0.3, 0.7, 1.0]
    assert "attn_drop 4." in caption_of(selection) and "layer 1, attention" in selection.title
    for temperature in (0.3, 1.0):
        rows = positions(("attn_drop", "4"), temperature).query("layer == 1 and step == 5")
        point = data[(data["temperature"] == temperature) & (data["step"] == 5)].set_index(["quantity", "source"])
        assert point.loc[("KL", "measured"), "median"] == pytest.approx(rows["kl"].median())
        assert point.loc[("1 - cos p", "estimate"), "high"] == pytest.approx((1 - rows["est_cos_p"]).quantile(0.75))
    canvas = canvas_of(tables, "fig11")
    assert [ax.get_title(loc="left") for ax in canvas.axes] == ["T = 0.3", "T = 0.7", "T = 1", "", "", ""]
    single = measures_table(FEW, LAYERS, PROMPTS).query("temperature == 1.0")
    with pytest.raises(MissingData, match="single temperature"):
        shown(tables_of(tmp_path, measures=single), "fig11")


def test_many_temperatures_are_sampled_evenly(tmp_path: Path) -> None:
    base = measures_table(FEW[1:2], LAYERS, PROMPTS).query("temperature == 1.0")
    values = [round(0.2 * place, 1) for place in range(1, 12)]
    selection, data = shown(
        tables_of(tmp_path, FEW[1:2], pd.concat([base.assign(temperature=t) for t in values])), "fig11"
    )
    assert sorted(data["temperature"].unique()) == [0.2, 0.6, 1.0, 1.4, 1.8, 2.2]
    assert "Left out for space: temperatures 0.4, 0.8, 1.2, 1.6, 2." in caption_of(selection)


@pytest.mark.parametrize(
    ("name", "measured", "estimate"),
    [
        ("fig14 panels", lambda rows: rows["kl"], lambda rows: rows["est_kl"]),
        ("fig15 panels", lambda rows: 1 - rows["cos_p"], lambda rows: 1 - rows["est_cos_p"]),
        ("fig16 panels", lambda rows: 1 - rows["cos_h"], lambda rows: 1 - rows["est_cos_h"]),
        ("fig17 panels", lambda rows: 1 - rows["cos_z"], lambda rows: 1 - rows["est_cos_z"]),
    ],
)
def test_measured_and_estimate_in_every_layer(tmp_path: Path, name: str, measured, estimate) -> None:
    tables = tables_of(tmp_path)
    selection, data = shown(tables, name)
    assert set(data["pruner"]) == {"attn_drop"} and set(data["sublayer"]) == {"attention"}
    assert caption_of(selection).startswith("attn_drop 4, pruning the attention of one layer at a time")
    rows = positions(("attn_drop", "4")).query("layer == 2 and step == 7")
    point = data.query("layer == 2 and step == 7").set_index("quantity")
    assert point.loc["measured", "median"] == pytest.approx(measured(rows).median())
    assert point.loc["estimate", "median"] == pytest.approx(estimate(rows).median())
    assert point.loc["measured", "low"] == pytest.approx(measured(rows).quantile(0.25))
    assert list(point["n"]) == [PROMPTS, PROMPTS]
    assert_drawn(canvas_of(tables, name), data, ("measured", "estimate"))


@pytest.mark.parametrize(
    ("name", "quantity", "value"),
    [
        ("fig18", "z", lambda rows: rows["orth_z"]),
        ("fig19", "var_uniform", lambda rows: rows["var_uniform"]),
        ("fig19", "var_r", lambda rows: rows["var_r"]),
        ("fig20", "var_uniform / orth_h", lambda rows: rows["var_uniform"] / rows["orth_h"]),
        ("fig20", "var_uniform / orth_z", lambda rows: rows["var_uniform"] / rows["orth_z"]),
        ("fig21", "var_r / orth_z", lambda rows: rows["var_r"] / rows["orth_z"]),
    ],
)
def test_magnitudes_and_variances_in_every_layer(tmp_path: Path, name: str, quantity: str, value) -> None:
    _, data = shown(tables_of(tmp_path), f"{name} panels")
    rows = positions(("attn_drop", "4")).query("layer == 0 and step == 3")
    point = data[(data["layer"] == 0) & (data["step"] == 3) & (data["quantity"] == quantity)].iloc[0]
    assert point["median"] == pytest.approx(value(rows).median())
    assert point["high"] == pytest.approx(value(rows).quantile(0.75))


@pytest.mark.parametrize("name", ["fig20", "fig21"])
def test_one_vanishing_orthogonal_part_does_not_make_the_line_of_ratios(tmp_path: Path, name: str) -> None:
    measures = measures_table(FEW, LAYERS, PROMPTS)
    first = measures["prompt"] == measures["prompt"].iloc[0]
    measures.loc[first, ["orth_h", "orth_z"]] *= 1e-6
    tables = tables_of(tmp_path, measures=measures)
    selection, data = shown(tables, f"{name} panels")
    assert f"Line: median over {PROMPTS} probe prompts" in caption_of(selection)
    rows = measures[(measures["pruner"] == "attn_drop") & (measures["sublayer"] == "attention")]
    rows = rows[(rows["temperature"] == 1.0) & (rows["protocol"] == "layer")].query("layer == 1 and step == 3")
    for space in ("h", "z"):
        variance = "var_uniform" if name == "fig20" else "var_r"
        ratios = (rows[variance] / rows[f"orth_{space}"]).to_numpy()
        point = data.query("layer == 1 and step == 3").set_index("quantity").loc[f"{variance} / orth_{space}"]
        assert point["median"] == pytest.approx(np.quantile(ratios, 0.5))
        assert ratios.mean() > 1000 * point["median"]
    assert_drawn(canvas_of(tables, f"{name} panels"), data, (f"{variance} / orth_h", f"{variance} / orth_z"))


def assert_drawn(canvas: Canvas, data: pd.DataFrame, quantities: tuple[str, str]) -> None:
    """Each small panel has the median line of each quantity in its layer, at the heights of their common axis."""
    frames, lines = tiles_of(canvas)
    scale = Decades.of(data[["median", "low", "high"]].to_numpy().ravel())
    for line, quantity in zip(lines, quantities, strict=True):
        for layer, (points, (top, bottom)) in enumerate(zip(line, frames, strict=True)):
            expected = data[(data["layer"] == layer) & (data["quantity"] == quantity)]["median"]
            np.testing.assert_allclose((points[:, 1] - bottom) / (top - bottom), scale.heights(expected))


def test_zero_denominators_are_left_out_and_counted(tmp_path: Path) -> None:
    measures = measures_table(FEW, LAYERS, PROMPTS)
    first = measures["prompt"] == measures["prompt"].iloc[0]
    measures.loc[first & (measures["layer"] == 1), "orth_h"] = 0.0
    measures.loc[measures["layer"] == 2, ["orth_h", "orth_z"]] = 0.0
    tables = tables_of(tmp_path, measures=measures)
    selection, data = shown(tables, "fig20 panels")
    kept = positions(("attn_drop", "4")).query("layer == 1 and step == 3").iloc[1:]
    point = data.query("layer == 1 and step == 3").set_index("quantity").loc["var_uniform / orth_h"]
    assert point["n"] == PROMPTS - 1
    assert point["median"] == pytest.approx((kept["var_uniform"] / kept["orth_h"]).median())
    # The first prompt has 16 steps, all of which at least half of the prompts reach; 23 steps count in all.
    lengths = [16, 23, 23, 20]
    total = 3 * sum(lengths)
    assert f"{sum(lengths) + 16} of {total} positions of var_uniform / orth_h" in caption_of(selection)
    assert f"{sum(lengths)} of {total} positions of var_uniform / orth_z" in caption_of(selection)
    assert "Not drawn, because no finite values: layer 2." in caption_of(selection)
    texts = [text.get_text() for text in canvas_of(tables, "fig20 panels").axes[0].texts]
    assert [text for text in texts if text.startswith("layer ")] == ["layer 0", "layer 1"]


def test_nothing_changed_has_no_ratio_and_nothing_to_track(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, [("wanda", "0")])
    for name in ("fig20", "fig21"):
        with pytest.raises(MissingData, match="no orthogonal part"):
            shown(tables, name)
    with pytest.raises(MissingData, match="nothing to track"):
        shown(tables, "fig22")
    assert not shown(tables, "fig14")[1]["median"].any()
    assert tracking(tables.measures)["rank_correlation"].isna().all() and breaks(tracking(tables.measures)) == []


def test_deep_models_are_sampled_evenly(tmp_path: Path) -> None:
    setups = (("attn_drop", "4"),)
    tables = tables_of(tmp_path, setups, measures_table(setups, 80, 1))
    assert shown(tables, "fig18")[1]["layer"].nunique() == 80
    selection, data = shown(tables, "fig18 panels")
    layers = sorted(data["layer"].unique())
    assert (len(layers), layers[0], layers[-1]) == (36, 0, 79)
    assert set(np.diff(layers)) == {2, 3}
    assert "36 of 80 layers, evenly spaced." in caption_of(selection)
    canvas = canvas_of(tables, "fig18 panels")
    assert len(tiles_of(canvas)[0]) == 36 and canvas.get_figheight() < 10


def boxes(canvas: Canvas) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every visible text of a canvas with the corners of its box."""
    texts = list(canvas.texts)
    for ax in canvas.axes:
        # Ticks beyond the limits of an axis are not drawn.
        labels = [tick.label1 for axis in (ax.xaxis, ax.yaxis) for tick in axis._update_ticks()]
        inside = [label for label in labels if ax.bbox.padded(1).overlaps(label.get_window_extent())]
        texts += [ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        texts += [label for label in labels if label not in inside and label.get_visible()]
    return [(text.get_text(), text.get_window_extent().extents) for text in texts if text.get_text()]


@pytest.mark.parametrize("name", [SOME_MAP, SOME_PANELS, "fig11", "fig22", "fig13", "fig04", "fig05"])
def test_labels_do_not_cover_each_other(tmp_path: Path, name: str) -> None:
    layers = 7 if name == SOME_PANELS else LAYERS
    canvas = canvas_of(tables_of(tmp_path, measures=measures_table(FEW, layers, PROMPTS)), name)
    for (one, a), (other, b) in itertools.combinations(boxes(canvas), 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one!r} and {other!r}"


def test_attention_that_changes_something_comes_first(tmp_path: Path) -> None:
    def choice(setups: Sequence[tuple[str, str]]) -> tuple[Variant, str]:
        tables = tables_of(tmp_path, setups)
        rows, variant = single_variant(tables, tables.protocol("layer"))
        return variant, first_sublayer(rows)[1]

    assert choice(FEW) == (Variant("attn_drop", "4"), "attention")
    assert choice([("attn_drop", "0"), ("wanda", "0.4"), ("shortgpt", "0.2")]) == (
        Variant("shortgpt", "0.2"),
        "attention",
    )
    assert choice([("mlp_drop", "4"), ("mlp_drop", "8")]) == (Variant("mlp_drop", "4"), "mlp")
    assert choice([("rtn", "0"), ("wanda", "0")]) == (Variant("rtn", "0"), "attention")


def test_tracking_over_depth_is_what_is_drawn(tmp_path: Path) -> None:
    tables = tables_of(tmp_path)
    selection, data = shown(tables, "fig22")
    rows = positions(("attn_drop", "4")).query("layer == 1")
    ranks = rows[["kl", "est_kl"]].rank().to_numpy()
    point = data.query("pruner == 'attn_drop' and layer == 1 and theorem == '3 (KL)'").iloc[0]
    assert point["rank_correlation"] == pytest.approx(np.corrcoef(ranks.T)[0, 1])
    assert point["log2_ratio"] == pytest.approx(np.log2((rows["est_kl"] / rows["kl"]).median()))
    assert "Left out for space: rtn (MLP)." in caption_of(selection)
    frames, lines = tiles_of(canvas_of(tables, "fig22"))
    assert len(frames) == 12
    top, bottom = frames[0]
    own = data[(data["pruner"] == "shortgpt") & (data["sublayer"] == "attention")]
    for place, value in enumerate(("rank_correlation", "log2_ratio")):
        curves = lines[place * len(theorems.THEOREMS) :][: len(theorems.THEOREMS)]
        heights = np.concatenate([curve[0][:, 1] for curve in curves])
        expected = np.concatenate([own.loc[own["theorem"] == theorem.name, value] for theorem in theorems.THEOREMS])
        slope, start = np.polyfit(expected, heights, 1)
        assert slope > 0 and bottom <= heights.min() and heights.max() <= top
        np.testing.assert_allclose(slope * expected + start, heights, atol=1e-9)


def test_ratios_beyond_the_axis_are_marked_at_its_edge(tmp_path: Path) -> None:
    measures = measures_table(FEW[1:2], LAYERS, PROMPTS)
    measures.loc[measures["layer"] == 1, "est_kl"] *= 100
    tables = tables_of(tmp_path, FEW[1:2], measures)
    selection, data = shown(tables, "fig22")
    assert data["log2_ratio"].max() > 6 and "Triangles: beyond \u00b13, drawn at the edge." in caption_of(selection)
    canvas = canvas_of(tables, "fig22")
    (mark,) = [line for line in canvas.axes[0].lines if line.get_marker() == "^"]
    frames, lines = tiles_of(canvas)
    (curve,) = lines[-1]  # the theorem on KL, on the right
    top, bottom = frames[1]
    np.testing.assert_allclose(mark.get_xydata(), curve[1:2])
    assert curve[1, 1] == curve[:, 1].max() == pytest.approx(bottom + (top - bottom) * (0.5 + 0.5 / 1.08))
