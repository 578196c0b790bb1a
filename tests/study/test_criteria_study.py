"""The comparison of criteria over all jobs at hand: which rows it pools, what it keeps, prints and draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_tables import identified, save

from pipeline.study.criteria.__main__ import CELLS, SEARCHES, costs_of_row, main, spent
from pipeline.study.criteria.cells import EVALUATION, KEYS, cells_of, costs_of, in_every_text, merged, named
from pipeline.study.criteria.cells import save as keep
from pipeline.study.criteria.texts import draws_compared, texts_compared
from pipeline.study.findings import compared, equal_tokens, lazy
from pipeline.tables.load import load

NEWS, SHOTS = ("news", {"length": 240}, 1), ("shots", {"length": 24}, 1)
RIGHT = {"dense": 0.9, "divergence": 0.8, "attn_drop": 0.5, "random_attn": 0.3}


def job(pruner: str, sparsity: str, text: tuple[str, dict, int] = ("", {}, 1), draw: int = 1) -> pd.DataFrame:
    """The items of a job: a task of which so many are right, the first ones."""
    right = (np.arange(40) < 40 * (RIGHT[pruner] - 0.02 * (draw - 1))).astype(float)
    rows = pd.DataFrame({"kind": "generative", "task": "one", "item": range(40), "score": right})
    found = identified(rows.assign(pruner=pruner, sparsity=sparsity), draw=draw)
    place = f"{pruner} {sparsity} {json.dumps(text)} {draw}"
    return found.assign(
        calibration=text[0],
        calibration_options=json.dumps(text[1]),
        calibration_draw=text[2],
        job=place,
        variant_id=place,
        unit="attention",
    )


@pytest.fixture
def outputs(tmp_path) -> Path:
    texts = (NEWS, SHOTS, ("shots", {"length": 24}, 2))
    jobs = [job("dense", "0"), *(job("random_attn", "4", draw=draw) for draw in (1, 2))]
    jobs += [
        job(name, sparsity, text)
        for name in RIGHT
        if name.endswith(("nce", "drop"))
        for sparsity in "46"
        for text in texts
    ]
    return outputs_of(tmp_path, jobs)


def outputs_of(folder: Path, jobs: list[pd.DataFrame]) -> Path:
    """Save what an outputs folder holds of these jobs."""
    items = pd.concat(jobs, ignore_index=True)
    above = items.drop_duplicates("job").assign(dense_low=0.7, chance=0.0, n=40, verdict="")
    above = above.assign(dense=0.9, pruned=0.5, difference=-0.4, low=-0.5, high=-0.3, retained=0.5)
    path = items[items["pruner"] == "divergence"].drop_duplicates("job").drop(columns=["kind", "task", "item"])
    path = path.assign(layer=1, sublayer="attention", step=0, forward_tokens=50.0, score=0.25)
    return save(folder, items=items, comparisons=above, rankings=path)


def cells_in(outputs: Path) -> pd.DataFrame:
    """The cells of the jobs, with the names of their texts."""
    tables = load(outputs)
    return named(cells_of(tables), costs_of(tables, outputs))[0]


def test_rows_stand_in_the_cells_of_the_text_that_their_criterion_read(outputs):
    stored = cells_in(outputs)
    assert set(stored.loc[stored["criterion"] == "random_attn", "text"]) == {""}
    cells = in_every_text(stored)
    texts = cells.groupby("criterion")[["text", "draw"]].agg(lambda own: sorted(set(own)))
    names = ['news {"length": 240}', 'shots {"length": 24}']
    assert list(texts["text"]) == [names] * 3 and list(texts["draw"]) == [["draw 1, seed 0", "draw 2, seed 0"]] * 3
    random = cells[cells["criterion"] == "random_attn"]
    assert set(random["sparsity"]) == {"4"} and set(random["replicate"]) == {1, 2} and len(random) == 40 * 2 * 3
    assert (cells["dense"] == (cells["item"] < 36)).all() and set(cells["chance"]) == {0.0} and cells["solved"].all()


def test_a_task_that_the_dense_model_does_not_solve_says_so(outputs):
    tables = dict(load(outputs))
    cells = cells_of(tables | {"comparisons": tables["comparisons"].assign(chance=0.7)})
    assert not cells["solved"].any()


def test_options_that_were_changed_make_another_criterion_whatever_else_was_run(outputs):
    tables = dict(load(outputs))
    other = job("divergence", "4", NEWS).assign(pruner_options='{"confidence": 4.0}', job="other")
    told = (
        tables["jobs"]
        .iloc[[-1]]
        .assign(pruner="divergence", pruner_options='{"confidence": 4.0}', changed='["confidence"]', job="other")
    )
    above = tables["comparisons"].iloc[[-1]].assign(job="other")
    added = {"items": other, "comparisons": above, "jobs": told}
    both = {name: pd.concat([tables[name], rows]) for name, rows in added.items()}
    names = set(cells_of(tables | both)["criterion"])
    assert {"divergence", "divergence, confidence 4.0", "attn_drop"} < names
    alone = {"items": pd.concat([tables["items"][tables["items"]["pruner"] == "dense"], other])}
    assert set(cells_of(tables | both | alone)["criterion"]) == {"divergence, confidence 4.0"}


def test_what_was_not_counted_is_missing(outputs):
    costs = costs_of(load(outputs), outputs)
    own = costs[costs["criterion"] == "divergence"]
    assert costs[["forward_tokens", "seconds", "removed"]].isna().all(axis=None) and set(own["reached"]) == {0.25}


def test_what_choosing_costs_is_told_at_the_largest_budget_of_several():
    """One search went further alone, and so did another model, which has fewer runs."""
    rows = [("tiny", "4", 10.0), ("tiny", "10", 100.0), ("tiny", "12", 120.0), ("other", "20", 1.0)]
    ours = [(*row, "divergence") for row in rows]
    costs = pd.DataFrame(
        [*ours, ("tiny", "4", 3.0, "attn_drop"), ("tiny", "10", 5.0, "attn_drop"), ("tiny", "4", 7.0, "evolution, x 1")]
    )
    costs.columns = ["model", "sparsity", "seconds", "criterion"]
    costs = costs.assign(unit="attention", text="shots {}", read="shots", draw="draw 1", forward_tokens=1.0, commit="a")
    # Timed anew, from nothing.
    costs.loc[costs["criterion"].eq("attn_drop") & costs["sparsity"].eq("10"), "commit"] = "b"
    found = spent(costs, "attention", "shots").set_index("criterion")
    assert dict(found["seconds"]) == {"divergence": 110.0, "attn_drop": 5.0, "evolution, x 1": 7.0}
    assert dict(found["spent_at"]) == {"divergence": "", "attn_drop": "", "evolution, x 1": "4"}
    assert [costs_of_row(row) for row in found.itertuples()] == [["1", "5"], ["1", "110"], ["1 at 4", "7 at 4"]]


def test_the_same_criterion_is_compared_after_reading_each_text(outputs):
    cells = cells_in(outputs)
    better = (cells["criterion"] == "attn_drop") & cells["text"].str.startswith("shots") & (cells["item"] < 32)
    rows = texts_compared(cells.assign(score=cells["score"].where(~better, 1.0)), "generative")
    assert list(rows["criterion"]) == ["attn_drop", "divergence"] and set(rows["text"]) == {"shots"}
    assert set(rows["against"]) == {"news"} and list(rows["cells"]) == [2, 2]
    assert list(rows["kept"]) == pytest.approx([0.8 / 0.9] * 2)
    assert list(rows["difference"]) == pytest.approx([0.3 / 0.9, 0.0])
    assert rows["p_holm"][0] < 0.05 and rows["p_holm"][1] == 1 and rows["low"][0] > 0


def text_of(**options: object) -> str:
    return f"shots {json.dumps(options)}"


def test_texts_are_named_by_what_differs_from_most_of_them():
    """Whichever families they are of."""
    usual = [text_of(families=[name], length=24, sequences=48) for name in "ab"]
    fewer = [text_of(families=[name], length=24, sequences=39) for name in "ab"]
    other = [text_of(families=["a"], length=16, sequences=39)]
    costs = pd.DataFrame({"text": [*usual, *usual, *fewer, *other, "", 'news {"length": 240}']})
    cells = pd.DataFrame({"text": [*fewer] * 100})
    judged, searches = named(cells, costs)
    assert set(judged["read"]) == {"shots, sequences 39"}
    assert searches["read"].tolist() == [
        *["shots"] * 4, *["shots, sequences 39"] * 2, "shots, length 16, sequences 39", "", "news"
    ]  # fmt: skip


def test_a_text_with_other_options_is_not_mixed_with_the_first(outputs):
    """After half as long a text every answer is right; what the text adds is told of each."""
    cells = cells_in(outputs).astype({"text": str, "read": str})
    shots = cells[cells["read"] == "shots"]
    shorter = shots.assign(text='shots {"length": 12}', read="shots, length 12", score=1.0)
    rows = texts_compared(pd.concat([cells, shorter]), "generative").set_index(["criterion", "text"])
    kept = rows.loc["attn_drop", "kept"]
    assert kept["shots"] == pytest.approx(0.5 / 0.9) and kept["shots, length 12"] > 1


def test_texts_of_other_families_on_the_same_tasks_are_draws(outputs):
    cells = cells_in(outputs).astype({"text": str})
    other = cells[cells["read"] == "shots"]
    other = other.assign(text='shots {"families": ["b"], "length": 24}', score=other["dense"])
    rows = texts_compared(pd.concat([cells, other]), "generative").set_index("criterion")
    assert rows.loc["attn_drop", "kept"] == pytest.approx((0.5 / 0.9 + 1) / 2)
    # As far apart as that, they tell nothing.
    assert rows.loc["attn_drop", "p_holm"] > 0.05


def test_fewer_sequences_stand_beside_the_whole_text():
    def row(criterion: str, sequences: int, families: str = "a", draw: str = "draw 1, seed 0") -> dict:
        text = text_of(families=[families], sequences=sequences)
        return {"unit": "block", "criterion": criterion, "text": text, "draw": draw, "model": "m", "sparsity": "4"}

    whole = [row("divergence_blocks", 48), row("perplexity_blocks", 48), row("shortgpt", 48)]
    apart = [row("perplexity_blocks", 48, "b"), row("perplexity_blocks", 48, draw="draw 2, seed 0")]
    costs = pd.DataFrame([*whole, *apart, row("perplexity_blocks", 39)])
    found = equal_tokens.beside_the_whole(named(costs[:0], costs)[1])
    assert found["criterion"].tolist() == [
        "divergence_blocks",
        "perplexity_blocks",
        "perplexity_blocks, fewer sequences",
    ]
    assert found[["text", "read", "draw"]].drop_duplicates().to_numpy().tolist() == [
        ["shots a", "shots", "draw 1, seed 0"]
    ]


def test_a_criterion_on_fewer_sequences_is_judged_beside_the_reference(tmp_path, monkeypatch):
    whole, fewer = (("shots", {"sequences": number}, 1) for number in (48, 39))
    jobs = [job("dense", "0"), job("divergence", "4", whole), job("attn_drop", "4", whole)]
    outputs = outputs_of(tmp_path / "jobs", [*jobs, job("attn_drop", "4", fewer)])
    kept = tmp_path / "kept"
    assert main([f"outputs={outputs}", "--kept", str(kept)]) == 0
    monkeypatch.setattr(compared, "KEPT", kept)
    found = equal_tokens.read(tmp_path).values["attention_table"]
    assert found.columns[4:] == ["minus `divergence`", "p (Holm)", "tokens", "items to tell"]
    assert [row[0] for row in found.rows] == ["divergence", "attn_drop", "attn_drop, fewer sequences"]
    assert all(row[4].startswith("-0.33 [") for row in found.rows[1:])


def test_draws_of_a_text_are_told_apart_on_equal_items(outputs):
    cells = cells_in(outputs)
    # One draw was asked fewer items, of which another criterion has all right.
    first = cells["draw"].eq("draw 1, seed 0") & cells["text"].str.startswith("shots")
    cells = cells[~first | (cells["item"] < 20)]
    better = cells["criterion"].eq("attn_drop") & cells["draw"].eq("draw 2, seed 0")
    found = draws_compared(cells.assign(score=cells["score"].where(~better, 0.5)), "generative")
    assert set(found["text"]) == {"shots"} and set(found["criterion"]) == {"attn_drop", "divergence"}
    kept = found.set_index(["criterion", "draw"])["kept"]
    assert kept["divergence"].tolist() == [1.0, 1.0] and kept["attn_drop"].tolist() == [1.0, 0.5]


def test_it_prints_draws_and_keeps_what_it_compares(outputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    kept = tmp_path / "kept"
    assert main([f"outputs={outputs}", "--kept", str(kept)]) == 0
    printed = capsys.readouterr().out
    assert "Removing attention sublayers" in printed and "minus divergence" in printed
    line = next(line for line in printed.splitlines() if line.lstrip().startswith("attn_drop"))
    assert f"{100 * (0.5 - 0.8) / 0.9:+.1f} [" in line
    assert (kept / "criteria.png").stat().st_size and (kept / "criteria.csv").stat().st_size
    # Where the jobs themselves are gone, what was kept says the same.
    assert main([f"outputs={tmp_path / 'nothing'}", "--kept", str(kept)]) == 0
    assert capsys.readouterr().out == printed


def test_a_cell_that_is_run_again_leaves_no_items_of_before(outputs, tmp_path):
    cells = cells_of(load(outputs))
    keep(cells, tmp_path / CELLS)
    again = cells[cells["criterion"].eq("attn_drop") & (cells["item"] < 8)].assign(score=0.25)
    both = merged(tmp_path / CELLS, again, KEYS, EVALUATION)
    own = both["criterion"].eq("attn_drop")
    assert set(both.loc[own, "item"]) == set(range(8)) and set(both.loc[own, "score"]) == {0.25}
    assert len(both[~own]) == (~cells["criterion"].eq("attn_drop")).sum()


def test_later_items_and_other_references_can_be_asked_for(outputs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main([f"outputs={outputs}", "--against", "attn_drop", "--from-item", "24"]) == 0
    printed = capsys.readouterr().out
    assert "minus attn_drop" in printed and f"{100 * 8 / 12:+.1f} [" in printed


def test_what_cannot_be_compared_is_refused(outputs, tmp_path, capsys):
    assert main([f"outputs={outputs}", "--against", "divergense"]) == 2
    assert capsys.readouterr().err == (
        "no job of divergense was evaluated; did you mean divergence? choose from attn_drop, divergence, random_attn\n"
    )
    assert main([f"outputs={outputs}", "--kind", "retrieval"]) == 1
    assert "run python -m pipeline.main -m experiment=fig28" in capsys.readouterr().err
    assert main([f"outputs={tmp_path / 'nothing'}"]) == 1
    assert "no tables" in capsys.readouterr().err


def test_findings_tell_what_keeps_more_less_or_neither(outputs, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    assert main([f"outputs={outputs}", "--kept", str(kept)]) == 0
    costs = pd.read_parquet(kept / SEARCHES)
    costs.assign(forward_tokens=costs["criterion"].map({"divergence": 50.0})).to_parquet(kept / SEARCHES)
    monkeypatch.setattr(compared, "KEPT", kept)
    found = compared.read(tmp_path).values
    assert found["attention_shots_tiny-lm_budgets"] == "4 and 6"
    assert found["attention_shots_said"] == "less than `divergence` is kept by `attn_drop`, `random_attn`."
    budgets = found["attention_shots_by_budget"]
    assert budgets.columns == ["criterion", "4", "6"]
    assert budgets.rows == [
        ["divergence", "0.89", "0.89"],
        ["attn_drop", "0.56", "0.56"],
        ["random_attn", "0.33", ""],
    ]
    assert [row[0] for row in found["attention_texts"].rows] == ["attn_drop", "divergence"]
    rows = {row[0]: row for row in found["attention_shots"].rows}
    assert rows["divergence"][1:3] == ["2", "2"] and rows["divergence"][3].startswith("0.89 [")
    assert rows["random_attn"][2] == ""
    assert rows["divergence"][6] == "50" and rows["attn_drop"][4].startswith("-0.33 [")
    # Of items 24 to 35, which dense has right, the reference has 24 to 31 right and the other none.
    unseen = {row[0]: row for row in found["attention_shots_unseen"].rows}
    assert unseen["divergence"][3].startswith("0.67 [") and unseen["attn_drop"][4].startswith("-0.67 [")
    assert found["attention_shots_unseen_items"] == "16" and "tokens" not in found["attention_shots_unseen"].columns


def test_findings_tell_what_each_model_says(outputs, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    assert main([f"outputs={outputs}", "--kept", str(kept)]) == 0
    cells = pd.read_parquet(kept / CELLS).astype({"model": str, "criterion": str})
    # Another model that loses nothing, whatever chooses, and that one criterion was not run on.
    other = cells[cells["criterion"] != "random_attn"].assign(model="other", score=cells["dense"])
    pd.concat([cells, other]).to_parquet(kept / CELLS)
    monkeypatch.setattr(compared, "KEPT", kept)
    found = compared.read(tmp_path).values["attention_shots_models"]
    assert found.columns[1:] == ["kept, tiny-lm", "difference", "kept, other", "difference"]
    rows = {row[0]: row[1:] for row in found.rows}
    assert set(rows) == {"divergence", "attn_drop"}
    assert rows["attn_drop"][2] == "1.00" and rows["attn_drop"][3].startswith("+0.00 [-0.")
    assert rows["divergence"][1] == "" and rows["attn_drop"][1].startswith("-0.33 [")


def test_a_lazy_search_stands_beside_a_full_one():
    place = {
        "model": "m",
        "text": 'shots {"families": ["copying"]}',
        "draw": "draw 2, seed 0",
        "unit": "attention",
        "sparsity": "4",
    }
    full = place | {"criterion": "divergence", "reached": 0.5, "differ": 1, "forward_tokens": 4000.0}
    both = pd.DataFrame([full | {"reached_lazy": 0.6, "forward_tokens_lazy": 1000.0}])
    asked = place | {"tasks": "t", "task": "t", "kind": "generative", "replicate": 1, "dense": 1.0, "chance": 0.0}
    # Of eight items, the full search has six right and the lazy one the first three of them.
    items = [
        asked | {"criterion": name, "item": item, "score": float(item < right), "solved": True}
        for name, right in (("divergence", 6), ("divergence, lazy True", 3))
        for item in range(8)
    ]
    (row,) = lazy.table(both, lazy.judged(pd.DataFrame(items), both)).rows
    assert row[:10] == ["m", "divergence", "copying, …", "2", "4", "1", "0.5000", "+20 %", "4,000", "-75 %"]
    assert row[10] == "0.75" and row[11].startswith("-0.38 [")
    (row,) = lazy.table(both.assign(differ=0), lazy.judged(pd.DataFrame(items), both)).rows
    assert row[10:] == ["0.75", "the same"]
    (row,) = lazy.table(both, lazy.judged(pd.DataFrame(items[:8]), both)).rows
    assert row[10:] == ["", ""]


def test_findings_say_which_differences_are_there():
    rows = pd.DataFrame(
        {
            "criterion": ["a", "ours", "b", "c"],
            "against": ["ours", None, "ours", "ours"],
            "difference": [0.2, np.nan, 0.01, -0.3],
            "low": [0.1, np.nan, -0.1, -0.4],
            "high": [0.3, np.nan, 0.12, -0.2],
            "draws": [1, 3, 3, 3],
        }
    )
    assert compared.said(rows) == (
        "more than `ours` is kept by `a`; less is kept by `c`; these cannot be told from it: `b`."
    )
    assert compared.said(rows.iloc[1:3]) == "these cannot be told from `ours`: `b`."
    assert compared.said(rows.assign(draws=1)).endswith(
        "`b`. This is after one draw of the text, and says nothing about others."
    )


def test_findings_name_the_cheapest_of_those_that_cannot_be_told_apart():
    """The reference has no difference to itself; what keeps less for sure is not named, however cheap it is."""
    rows = pd.DataFrame(
        {
            "criterion": ["ours", "estimate", "slow", "cosine", "random_attn"],
            "difference": [np.nan, -0.04, -0.05, -0.3, -0.3],
            "low": [np.nan, -0.3, -0.3, -0.4, -0.9],
            "high": [np.nan, 0.1, 0.1, -0.2, 0.3],
            "seconds": [400.0, 52.4, 1000.0, 3.0, 1.0],
            "against": [None, "ours", "ours", "ours", "ours"],
            "cells": 8,
        }
    )
    assert compared.cheapest(rows) == "`estimate`, 52 s"
    near = rows.assign(seconds=[400.0, 52.4, 50.0, 3.0, 1.0], difference=[np.nan, -0.03, -0.05, -0.3, -0.3])
    assert compared.cheapest(near) == "`estimate`, 52 s"
    assert compared.cheapest(near.assign(seconds=[59.0, 52.4, 50.0, 3.0, 1.0])) == "`ours`, 59 s"
    assert compared.cheapest(rows.assign(seconds=np.nan)) == ""
    # Too few draws tell nothing of what keeps less by more than the margin.
    noisy = rows.assign(difference=[np.nan, -0.06, -0.05, -0.3, -0.3])
    assert compared.cheapest(noisy) == "`ours`, 400 s"
    # What was run in fewer cells is hardly told from anything.
    assert compared.cheapest(rows.assign(cells=[8, 4, 8, 8, 8])) == "`ours`, 400 s"


def test_findings_say_whether_two_searches_found_the_same():
    place = {"model": "m", "draw": "", "unit": "attention", "sparsity": "2"}
    rows = [
        ("a", "divergence", "attention 1, attention 3"),
        ("a", "evolution, generations 50", "attention 3, attention 1"),
    ]
    rows += [
        ("b", "divergence", "attention 1, attention 3"),
        ("b", "evolution, generations 50", "attention 1, attention 4"),
    ]
    costs = pd.DataFrame([place | dict(zip(("text", "criterion", "removed"), row, strict=True)) for row in rows])
    assert compared.same_units(costs, "evolution, generations 50", "divergence") == "1 of 2"
