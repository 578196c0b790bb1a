"""Criteria at equal budget: what is kept, how sure that is, and what only looks like a difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_figures import assert_apart, canvas_of, drawn, missing, texts_on
from figure_tables import comparisons_table, fill, identified, jobs_table, save, scores_table, told_items

from pipeline.analysis.criteria import criteria
from pipeline.evaluate.intervals import wilson
from pipeline.plot.paper import fig29_estimate
from pipeline.tables.choice import choose
from pipeline.tables.read import Tables, load
from pipeline.tables.stored import MissingData

SETUPS = [("divergence", "4"), ("attn_drop", "4"), ("random_attn", "4")]


def answers(name: str, share: float, items: int, draw: int = 1) -> pd.DataFrame:
    """Two tasks of which so many of the items are right, always the first ones."""
    right = (np.arange(items) < share * items).astype(float)
    rows = [pd.DataFrame({"task": task, "item": range(items), "score": right}) for task in ("one", "two")]
    frame = pd.concat(rows).assign(pruner=name, sparsity="4" if name != "dense" else "0", kind="generative")
    return identified(frame, draw=draw).assign(options="", replicate=f"draw {draw}")


def tables_of(folder: Path, scores: dict[str, float | tuple[float, ...]], items: int = 100) -> Tables:
    """Tables in which a pruner has so many of the items right; several shares are those of several draws."""
    setups = [(name, "4") for name in scores if name != "dense"]
    frame = pd.concat(
        answers(name, share, items, draw)
        for name, shares in scores.items()
        for draw, share in enumerate(shares if isinstance(shares, tuple) else (shares,), 1)
    )
    jobs = jobs_table(setups).assign(unit="attention")
    save(folder, scores=scores_table(setups), comparisons=comparisons_table(setups), jobs=jobs)
    tables = load(folder, choose(folder))
    above = pd.DataFrame({"task": ["one", "two"], "kind": "generative", "dense_low": 0.5, "chance": 0.0})
    return replace(tables, items=frame, comparisons=above)


def row(found: pd.DataFrame, criterion: str, against: str = "") -> pd.Series:
    (place,) = found.index[(found["criterion"] == criterion) & (found["against"] == against)]
    return found.loc[place]


def test_what_is_kept_and_the_difference(tmp_path):
    found = criteria(tables_of(tmp_path, {"dense": 0.8, "divergence": 0.6, "attn_drop": 0.2}))
    assert row(found, "divergence")["kept"] == pytest.approx(0.75)
    assert row(found, "attn_drop")["kept"] == pytest.approx(0.25)
    pair = row(found, "divergence", "attn_drop")
    assert pair["difference"] == pytest.approx(0.5)
    assert 0.38 < pair["low"] < 0.46 and 0.54 < pair["high"] < 0.62
    assert len(found) == 3


def test_equal_answers_are_no_difference_but_leave_room_for_one(tmp_path):
    found = criteria(tables_of(tmp_path, {"dense": 0.8, "divergence": 0.5, "attn_drop": 0.5}))
    pair = row(found, "divergence", "attn_drop")
    assert pair["difference"] == 0
    assert -0.05 < pair["low"] < -0.005 and 0.005 < pair["high"] < 0.05


@pytest.mark.parametrize("items", [6, 12, 100])
def test_intervals_do_not_collapse_where_all_items_agree(tmp_path, items):
    """They are about as wide as Wilson's of all items together, which is known for its coverage."""
    found = criteria(tables_of(tmp_path, {"dense": 1.0, "divergence": 1.0, "attn_drop": 0.0}, items))
    kept, lost = (row(found, name) for name in ("divergence", "attn_drop"))
    assert (kept["kept"], lost["kept"]) == (1, 0)
    width = 1 - wilson(2 * items, 2 * items).low
    # The dense score may be lower, too, which one that is always 0 does not feel.
    assert lost["kept_high"] == pytest.approx(width, rel=0.5)
    assert 1 - kept["kept_low"] == pytest.approx(width, rel=0.7)
    assert row(found, "divergence", "attn_drop")["low"] < 1 - width / 2


def test_draws_count_as_one_criterion_and_their_spread_widens_the_interval(tmp_path):
    alike = {"dense": 0.8, "divergence": 0.6, "random_attn": (0.4, 0.4, 0.4)}
    apart = alike | {"random_attn": (0.1, 0.4, 0.7)}
    rows = [row(criteria(tables_of(tmp_path / n, of)), "random_attn") for n, of in (("a", alike), ("b", apart))]
    assert [one["draws"] for one in rows] == [3, 3]
    assert [one["kept"] for one in rows] == pytest.approx([0.5, 0.5])
    width = [one["kept_high"] - one["kept_low"] for one in rows]
    # Three means with a standard deviation of 0.375 have a Student interval of twice 4.3 · 0.375 / sqrt(3).
    assert width[0] < 0.3 and width[1] == pytest.approx(2 * 4.303 * 0.375 / 3**0.5, rel=0.15)


@pytest.mark.rotated("intervals of criteria")
@pytest.mark.parametrize("items", [100])
def test_nineteen_of_twenty_intervals_hold_the_true_shares(tmp_path, items):
    """Items of which half are as hard for one model as for the others; 200 samples, so that 0.92 is two errors off."""
    true = {"dense": 0.9, "divergence": 0.5, "attn_drop": 0.2}
    tables = tables_of(tmp_path, true, items)
    rng = np.random.default_rng(0)
    order = tables.items["task"] + tables.items["item"].astype(str)
    held = []
    for _ in range(200):
        hardness = order.map(dict(zip(order.unique(), rng.random(order.nunique()), strict=True))).to_numpy()
        own = np.where(rng.random(len(order)) < 0.5, hardness, rng.random(len(order)))
        scores = (own < tables.items["pruner"].map(true)).astype(float)
        found = criteria(replace(tables, items=tables.items.assign(score=scores)))
        kept, more = row(found, "divergence"), row(found, "divergence", "attn_drop")
        held.append((kept["kept_low"] <= 5 / 9 <= kept["kept_high"], more["low"] <= 3 / 9 <= more["high"]))
    assert (np.mean(held, axis=0) >= 0.92).all()


def test_of_several_seeds_the_mean_is_given_each_beside_its_own_dense_job(tmp_path):
    first = tables_of(tmp_path, {"dense": 0.8, "divergence": 0.6, "attn_drop": 0.2})
    other = tables_of(tmp_path / "b", {"dense": 0.5, "divergence": 0.2, "attn_drop": 0.1})
    again = other.items.assign(seed=1, job=other.items["job"] + " seed 1")
    found = criteria(replace(first, items=pd.concat([first.items, again])))
    kept, pair = row(found, "divergence"), row(found, "divergence", "attn_drop")
    assert (kept["seeds"], kept["draws"], kept["n"]) == (2, 2, 400)
    assert kept["kept"] == pytest.approx((0.6 / 0.8 + 0.2 / 0.5) / 2)
    assert pair["difference"] == pytest.approx((0.4 / 0.8 + 0.1 / 0.5) / 2)
    # A seed without its dense job, or without one of the criteria, is not compared.
    alone = again[again["pruner"] != "dense"]
    assert row(criteria(replace(first, items=pd.concat([first.items, alone]))), "divergence")["kept"] == pytest.approx(
        0.75
    )


def test_one_criterion_is_compared_with_nothing(tmp_path):
    assert criteria(tables_of(tmp_path, {"dense": 0.8, "divergence": 0.6})).empty
    assert (
        criteria(tables_of(tmp_path / "x", {"dense": 0.8, "attn_drop": 0.6, "random_attn": 0.4}))["against"].max() == ""
    )


def test_tasks_that_a_criterion_lacks_are_left_out(tmp_path):
    tables = tables_of(tmp_path, {"dense": 0.8, "divergence": 0.6, "attn_drop": 0.2})
    lost = (tables.items["pruner"] == "attn_drop") & (tables.items["task"] == "two")
    found = criteria(replace(tables, items=tables.items[~lost]))
    assert set(found["tasks"]) == {1} and set(found["n"]) == {100}


def test_the_figures_show_what_was_found(tmp_path):
    setups = [*SETUPS, ("divergence", "8"), ("attn_drop", "8"), ("divergence_estimate", "4")]
    fill(tmp_path, setups, layers=1)
    jobs, items = jobs_table(setups).assign(unit="attention"), told_items(setups)
    draws = [(frame[frame["pruner"] == "random_attn"], n) for frame in (items, jobs) for n in (2, 3)]
    again = [frame.assign(pruner_draw=n, job=frame["job"] + f" draw {n}") for frame, n in draws]
    save(tmp_path, jobs=pd.concat([jobs, *again[2:]]), items=pd.concat([items, *again[:2]]))
    result, data = drawn(tmp_path, "fig28_criteria")
    found = criteria(load(tmp_path, choose(tmp_path)))
    found = found[found["kind"] == "generative"]
    assert sorted(data["kept_percent"].dropna()) == pytest.approx(sorted(100 * found["kept"].dropna()))
    assert "random_attn: mean of 3 draws" in result.caption
    assert_apart(texts_on(canvas_of(result, data)), canvas_of(result, data))
    result, data = drawn(tmp_path, "fig29_estimate")
    assert_apart(texts_on(canvas_of(result, data)), canvas_of(result, data))
    assert len(data) == 12 and data["rank"].iloc[0] > 0.8 and set(data["count"]) == {4}


def test_a_block_is_chosen_alike_with_its_two_sublayers(tmp_path):
    units = [(kind, layer, value) for layer, value in ((0, 0.1), (1, 0.3), (2, 0.5)) for kind in ("attention", "mlp")]
    taken = {"divergence_joint": [("block", 0)], "divergence_estimate_joint": [("mlp", 0), ("attention", 0)]}
    rows = [
        (name, kind, layer, cost, step)
        for name, path in taken.items()
        for kind, layer, cost, step in [
            *((kind, layer, value, -1) for kind, layer, value in units),
            *((kind, layer, 0.1, step) for step, (kind, layer) in enumerate(path)),
        ]
    ]
    frame = pd.DataFrame(rows, columns=["pruner", "sublayer", "layer", "score", "step"]).assign(sparsity="2")
    tables = replace(tables_of(tmp_path, {"dense": 0.8, "divergence": 0.5}), rankings=frame)
    data = fig29_estimate.FIGURE.select(tables).data
    assert set(data["shared"]) == {2} and set(data["count"]) == {2}
    # What was given up has no cost of its own, only a lower bound.
    given_up = frame.assign(measured=np.where(frame["layer"] == 2, 0.5, 1.0))
    assert set(fig29_estimate.FIGURE.select(replace(tables, rankings=given_up)).data["layer"]) == {0, 1}
    with pytest.raises(MissingData, match="pruner.lazy=true"):
        fig29_estimate.FIGURE.select(replace(tables, rankings=frame.assign(measured=0.5)))


def test_the_figures_say_what_they_lack(tmp_path):
    fill(tmp_path)
    assert "divergence" in missing(tmp_path, "fig28_criteria")
    assert "estimate" in missing(tmp_path, "fig29_estimate")
