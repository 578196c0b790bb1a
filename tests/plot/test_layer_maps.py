"""Maps of layer and step with their supplements, the dropped layers that they mark, and medians inside quartiles."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from figure_tables import fill
from layer_figures import FEW, LAYERS, PANELS, PROMPTS, canvas_of, caption_of, shown, tables_of
from matplotlib.collections import QuadMesh

from pipeline.plot import scales
from pipeline.report.pictures import label_of
from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord
from pipeline.tables.choice import choose
from pipeline.tables.job_tables import JobTables
from pipeline.tables.read import load


def test_maps_show_the_medians_of_all_sublayers_on_one_scale_and_mark_dropped_layers(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, FEW[:1])
    selection, data = shown(tables, "fig14")
    canvas = canvas_of(tables, "fig14")
    (ax,) = canvas.axes
    meshes = [drawn for drawn in ax.collections if isinstance(drawn, QuadMesh)][1:]  # after the colour bar
    titles = {text.get_text(): text.get_position() for text in ax.texts}
    names = ["attention: measured", "attention: estimate", "MLP: measured", "MLP: estimate"]
    corners = [tuple(mesh.get_coordinates()[-1, 0]) for mesh in meshes]
    assert [titles[name][0] for name in names] == pytest.approx([x for x, _ in corners])
    assert all(0 < titles[name][1] - y < 0.1 for name, (_, y) in zip(names, corners, strict=True))
    assert len({(mesh.norm.vmin, mesh.norm.vmax) for mesh in meshes}) == 1 and len(meshes) == 4
    for mesh, (sublayer, quantity) in zip(
        meshes, itertools.product(("attention", "mlp"), ("measured", "estimate")), strict=True
    ):
        own = data[(data["sublayer"] == sublayer) & (data["quantity"] == quantity)]
        np.testing.assert_array_equal(mesh.get_array(), own.pivot(index="layer", columns="step", values="median"))
    assert set(data.loc[data["dropped"] == 1, "layer"]) == {0, 1}  # the blocks of the decision
    marks, cells = ax.lines[0].get_ydata(), meshes[0].get_coordinates()[:, 0, 1]
    np.testing.assert_allclose(marks, (cells[:-1] + cells[1:])[:2] / 2)  # in the middle of layers 0 and 1
    assert f"median over {PROMPTS} probe prompts" in caption_of(selection)
    only_mlp = shown(tables_of(tmp_path, [("mlp_drop", "4")]), "fig14")[1]
    assert set(only_mlp["sublayer"]) == {"mlp"}
    changed = shown(tables_of(tmp_path, FEW[2:3]), "fig14")
    assert not changed[1]["dropped"].any() and "Triangles" not in caption_of(changed[0])


def test_medians_lie_inside_their_quartiles(tmp_path: Path) -> None:
    tables = load(fill(tmp_path, FEW, LAYERS), choose(tmp_path))
    for name in ("fig02", "fig04", "fig05", "fig06", "fig07", "fig11", "fig12", "fig13", "fig23", *PANELS):
        data = shown(tables, name)[1].rename(columns=lambda column: column.removesuffix("_deviation"))
        assert (data["low"] <= data["median"]).all() and (data["median"] <= data["high"]).all(), name
        assert f"{PROMPTS} probe prompts" in caption_of(shown(tables, name)[0]), name


def test_supplements_are_named_after_their_figure() -> None:
    names = ("fig12_free_running_panels", "fig14_layers_kl", "fig14_layers_kl_panels", "tab1_drop_table")
    assert [label_of(name) for name in names] == ["Figure 12", "Figure 14", "Figure 14, panels", "Table 1"]


def test_dropped_layers_are_those_of_the_decision(tmp_path: Path) -> None:
    decision = tmp_path / "store" / "decision.json"
    decision.parent.mkdir()
    decision.write_text(json.dumps({"blocks": [5], "attention": [2, 0], "mlp": []}))
    record = JobRecord("job", "settings", "model", "pruner", "3", artifacts={"decision": "store"})
    assert JobTables(record, Store(tmp_path)).dropped == {"attention": [0, 2, 5], "mlp": [5]}
    assert JobTables(replace(record, artifacts={}), Store(tmp_path)).dropped == {"attention": [], "mlp": []}


def test_a_short_logarithmic_axis_has_more_than_two_ticks() -> None:
    _, labels = scales.decade_ticks(0.22, 1.25, cosine=True)
    assert labels == ["0.7", "0.5", "0.3", "0"]


def test_a_logarithmic_axis_has_few_labels_apart_from_one_another() -> None:
    for low, top, zero in ((1e-9, 2.0, True), (0.04, 30.0, False), (0.2, 0.25, False), (3e-7, 5e-6, True)):
        for most in (4, 7):
            places, labels = scales.decade_ticks(low, top, zero=zero, most=most)
            heights = [scales.LINEAR * zero + np.log10(place / low) if place else 0.0 for place in places]
            assert 2 <= len(labels) == len(set(labels)) <= most + 1
            assert low <= min(place for place in places if place) and max(places) <= top
            assert zero == (0.0 in places)
            if top > 2 * low:
                assert np.diff(heights).min() >= 0.99 * heights[-1] / (most + 1)
