"""Pruning by the change of the output: both distances by hand, and candidates as full passes give them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import calibration_batches, context_for, pruner_of
from scipy.spatial.distance import jensenshannon

from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.model.structure import ATTENTION, BLOCK, MLP
from pipeline.prune.base import Context
from pipeline.prune.methods.output_change import angular_distance, jensen_shannon
from pipeline.prune.methods.units import ALONE
from pipeline.prune.surgery import dropped


def test_angles_of_rows_known_by_hand():
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
    two = torch.tensor([[0.0, 2.0], [-1.0, 0.0], [1.0, 1.0], [6.0, 8.0], [1.0, 1e-5]])
    expected = [1 / 2, 1, 1 / 4, 0, 1e-5 / math.pi]
    assert angular_distance(one, two).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_jensen_shannon_is_that_of_scipy():
    one, two = torch.randn(6, 30, dtype=torch.float64), torch.randn(6, 30, dtype=torch.float64) * 3
    expected = [jensenshannon(p, q) ** 2 for p, q in zip(one.softmax(-1).numpy(), two.softmax(-1).numpy(), strict=True)]
    assert jensen_shannon(one, two).numpy() == pytest.approx(np.array(expected))
    assert jensen_shannon(one, one).tolist() == [0] * 6
    # Predictions that have no token in common are log 2 apart.
    assert float(jensen_shannon(torch.tensor([[99.0, -99.0]]), torch.tensor([[-99.0, 99.0]]))) == pytest.approx(
        math.log(2)
    )


@torch.inference_mode()
def change(model, gone, distance: str) -> float:
    """Mean distance of the output, by two full passes in float64."""
    ids = torch.cat(calibration_batches())

    def logits() -> torch.Tensor:
        return model(ids, use_cache=False).logits[:, :-1].double().flatten(0, 1)

    dense = logits()
    with dropped(Decoder(model), gone):
        other = logits()
    if distance == "angular":
        return float(torch.cosine_similarity(dense, other, -1).clamp(-1, 1).arccos().mean()) / math.pi
    pairs = zip(dense.softmax(-1).numpy(), other.softmax(-1).numpy(), strict=True)
    return float(np.mean([jensenshannon(p, q) ** 2 for p, q in pairs]))


@pytest.mark.parametrize("distance", ["angular", "jensen_shannon"])
def test_candidates_are_measured_as_by_full_passes(make_model, distance):
    model = make_model()
    pruner, candidates = replace(pruner_of("output_change"), distance=distance), [(ATTENTION, 0), (MLP, 2), (BLOCK, 3)]
    context = Context(trajectory=context_for(pruner, model).trajectory, candidates=candidates)
    for row in pruner.importance(Decoder(model), context):
        expected = change(model, {row["sublayer"]: [row["layer"]]}, distance)
        assert row["score"] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_the_distances_have_scores_of_their_own_and_the_units_share_them():
    one = pruner_of("output_change")
    assert one.scoring_identity() == pruner_of("output_change_joint").scoring_identity()
    assert one.scoring_identity() != replace(one, distance="jensen_shannon").scoring_identity()
    assert one.scoring_identity()["type"] != pruner_of("perplexity").scoring_identity()["type"]


def test_the_joint_ranking_takes_the_sublayers_that_change_least(make_model):
    model, pruner = make_model(), pruner_of("output_change_joint")
    decision = pruner.decide(Decoder(model), parse(2), context_for(pruner, model))
    first, second = [row for row in decision.scores if row["step"] != ALONE]
    units = [(kind, layer) for layer in range(4) for kind in (ATTENTION, MLP)]
    alone = {unit: change(model, {unit[0]: [unit[1]]}, "angular") for unit in units}
    best = min(alone, key=alone.__getitem__)
    assert (first["sublayer"], first["layer"]) == best
    pairs = {
        unit: change(
            model, {best[0]: [best[1]]} | {unit[0]: [unit[1], *([best[1]] if unit[0] == best[0] else [])]}, "angular"
        )
        for unit in units
        if unit != best
    }
    assert (second["sublayer"], second["layer"]) == min(pairs, key=pairs.__getitem__)
