"""The drawn tokens of the estimate: from the seed, scored anew for each, with their spread beside the estimate."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import context_for, pruner_of

from pipeline.config.sparsity import parse
from pipeline.model.continuations import continued
from pipeline.model.decoder import Decoder
from pipeline.model.gates import gated
from pipeline.model.sources.random import RandomModel
from pipeline.model.sources.tiny import tiny_model
from pipeline.model.structure import ATTENTION, BLOCK, MLP
from pipeline.prune.base import Context
from pipeline.prune.methods.units import ALONE
from pipeline.prune.pruned_model import decision_of
from pipeline.prune.stage import Importance
from pipeline.prune.surgery import dropped
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Store

NAMES = ("divergence_estimate", "divergence_estimate_mlp", "divergence_estimate_blocks", "divergence_estimate_joint")
SEEDS = 300


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer):
    """A model of two blocks and its continuations of three prompts."""
    source = RandomModel(name="random", layers=2, hidden=16)
    model = source.load(torch.float32, Store(tmp_path_factory.mktemp("tiny")))
    return model, continued(model, tokenizer, ["A short one", "Another, which is longer", "And a third"], 5)


def scores(tiny, seed: int, draws: int = 4, name: str = "divergence_estimate_joint") -> list[dict]:
    model, trajectory = tiny
    pruner = replace(pruner_of(name), draws=draws)
    context = Context(trajectory=trajectory, seed=seed, progress=lambda items, *_: items)
    rows = pruner.importance(Decoder(model), context)
    decision = pruner.decide(
        Decoder(model), parse(2 if name.endswith("joint") else 1), replace(context, scores=lambda _: rows)
    )
    return decision.scores


def alone(rows: list[dict], column: str) -> np.ndarray:
    return np.array([row[column] for row in rows if row["step"] == ALONE])


@pytest.mark.rotated("spread of estimates")
def test_the_spread_is_what_other_draws_change_the_estimate_by(tiny):
    """Of units alone and of the set that goes: the spread of the estimates of many seeds, by their own variance."""
    found = [scores(tiny, seed) for seed in range(SEEDS)]
    estimates, spreads = (np.array([alone(rows, column) for rows in found]) for column in ("score", "spread"))
    assert np.square(spreads).mean(0) == pytest.approx(estimates.var(0, ddof=1), rel=0.35)
    paths = [[(row["sublayer"], row["layer"]) for row in rows if row["step"] != ALONE] for rows in found]
    common = max(map(tuple, paths), key=list(map(tuple, paths)).count)
    last = [rows[-1] for rows, path in zip(found, paths, strict=True) if tuple(path) == common]
    assert len(last) > SEEDS / 8
    assert all(row["spread"] > 0 for row in last)


@pytest.mark.rotated("spread of estimates")
def test_more_draws_have_less_spread_and_one_has_none_to_tell(tiny):
    few, many = (np.mean([alone(scores(tiny, seed, draws), "spread") for seed in range(20)]) for draws in (4, 64))
    assert few / many == pytest.approx(4, rel=0.25)
    assert not any("spread" in row for row in scores(tiny, 0, draws=1))


def test_the_seed_decides_what_is_drawn(tiny):
    first = alone(scores(tiny, 0), "score")
    assert (first == alone(scores(tiny, 0), "score")).all()
    assert (first != alone(scores(tiny, 1), "score")).all()


def test_sets_cost_what_their_gates_cost_together(tiny):
    """The path against the sum over all pairs of its parts, from the slopes that importance gives."""
    model, trajectory = tiny
    pruner = pruner_of("divergence_estimate_blocks")
    rows = pruner.importance(Decoder(model), Context(trajectory=trajectory))
    slopes = {(row["sublayer"], row["layer"]): np.array(row["slopes"]) for row in rows}
    pairs = {(a, b): float(slopes[a] @ slopes[b]) for a in slopes for b in slopes}
    decision = pruner.decide(Decoder(model), parse(1), Context(scores=lambda _: rows))
    for row in decision.scores:
        assert row["sublayer"] == BLOCK
        parts = [(kind, row["layer"]) for kind in (ATTENTION, MLP)]
        by_hand = sum(pairs[part, part] for part in parts) + 2 * sum(pairs[pair] for pair in combinations(parts, 2))
        assert row["score"] == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_has_its_spread(make_model, name):
    pruner, model = pruner_of(name), make_model()
    decision = pruner.decide(Decoder(model), parse(2), context_for(pruner, model))
    assert all(0 < row["spread"] < row["score"] for row in decision.scores)
    assert not any("spread" in row for row in exact(model, name))


def exact(model, name: str) -> list[dict]:
    pruner = pruner_of(name.replace("_estimate", ""))
    return pruner.decide(Decoder(model), parse(1), context_for(pruner, model)).scores


@pytest.mark.parametrize("kind", ["llama", "opt", "gpt_neox_japanese", "prophetnet", "xlm"])
def test_a_gate_of_zero_leaves_a_sublayer_out_in_its_sequence_alone(kind):
    """Also where blocks flatten their tokens, add a bias by themselves, or have several states for each token."""
    model = tiny_model(kind)
    decoder, ids = Decoder(model), torch.arange(3, 35).view(2, 16)
    at = len(decoder.sublayers()) - 2
    gone = decoder.sublayers()[at]
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        with dropped(decoder, {gone.kind: [gone.layer]}):
            without = model(ids, use_cache=False).logits
        with gated(decoder, 2) as gates:
            gates[at][1] = 0
            found = model(ids, use_cache=False).logits
    assert torch.allclose(found[0], whole[0], atol=1e-5) and torch.allclose(found[1], without[1], atol=1e-5)
    assert not torch.allclose(without[1], whole[1], atol=1e-3)


def test_scores_are_kept_by_seed_where_they_are_drawn(make_settings, tmp_path):
    """Another seed scores anew, another sparsity does not; what does not draw has one score for all seeds."""
    for name, artifacts in (("divergence_estimate", 2), ("shortgpt", 1)):
        store, found = Store(tmp_path / name), {}
        for seed, sparsity in ((0, 1), (1, 1), (0, 2)):
            same = ("model.seed=0", "model.layers=3", "calibration.seed=0")
            words = (f"pruner={name}", f"seed={seed}", f"sparsity={sparsity}", *same)
            stages = Workbench(make_settings(*words), store)
            rows = decision_of(stages).scores
            found[seed, sparsity] = {
                (row["sublayer"], row["layer"]): row["score"] for row in rows if row.get("step", ALONE) == ALONE
            }
        assert len(list(store.root.glob(f"**/{Importance.name}/*/scores.parquet"))) == artifacts
        assert found[0, 1] == found[0, 2]
        assert (found[0, 1] == found[1, 1]) == (name == "shortgpt")


def test_the_spread_comes_as_far_as_the_tables(make_settings, tmp_path):
    stages = Workbench(make_settings("pruner=divergence_estimate", "sparsity=2", "model.layers=3"), Store(tmp_path))
    frame = pd.DataFrame(decision_of(stages).scores)
    assert {"layer", "sublayer", "score", "step", "questions", "spread"} == set(frame.columns)
    assert frame["spread"].notna().all()
    assert list(frame.loc[frame["step"] != ALONE, "questions"]) == [3, 2]
