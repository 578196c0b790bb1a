"""Sparsities of blocks by outliers (OWL) and by spectra (AlphaPruning): by hand, and against samples of known tails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import calibration_batches, context_for, pruner_of

from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.prune.methods.allocation import stretched
from pipeline.prune.methods.alpha_pruning import exponent, hill, tail_of

SIZES = [100, 100, 100, 100]


def rows_of(scores) -> list[dict]:
    return [{"layer": layer, "sublayer": "block", "score": score} for layer, score in enumerate(scores)]


def test_stretching_is_linear_between_its_ends():
    assert stretched([3, 1, 2, 1.5], 10, 14).tolist() == [14, 10, 12, 11]
    assert stretched([7, 7], 1, 2).tolist() == [1.5, 1.5]


def test_owl_keeps_more_where_more_weights_are_outliers():
    """Ratios 1 %, 3 %, 2 %, 2 % with λ = 0.1: kept 0, 0.2, 0.1, 0.1 beside a mean of 0.1."""
    pruner = replace(pruner_of("wanda_owl"), reach=0.1)
    shares = pruner.wanted(SIZES, 0.6, rows_of([0.01, 0.03, 0.02, 0.02]))
    assert shares == pytest.approx([0.7, 0.5, 0.6, 0.6])
    assert pruner.wanted(SIZES, 0.6, rows_of([0.01] * 4)) == pytest.approx([0.6] * 4)


@pytest.mark.parametrize("threshold", [2.0, 5.0])
def test_owl_counts_weights_above_the_mean_of_their_block(make_model, threshold):
    """Against numpy, from what plain hooks see of the dense model."""
    model, pruner = make_model(), replace(pruner_of("wanda_owl"), threshold=threshold)
    inputs: dict[str, list[np.ndarray]] = {}
    linears = [linear for layer in range(4) for linear in Decoder(model).linears(layer)]
    hooks = [
        linear.module.register_forward_pre_hook(
            lambda module, args, name=linear.name: inputs.setdefault(name, []).append(args[0].flatten(0, 1).numpy())
        )
        for linear in linears
    ]
    with torch.inference_mode():
        for batch in calibration_batches():
            model(batch)
    for hook in hooks:
        hook.remove()
    scores = pruner.importance(Decoder(model), context_for(pruner, model))
    for layer, row in enumerate(scores):
        metrics = [
            abs(linear.weight.numpy()) * np.linalg.norm(np.concatenate(inputs[linear.name]), axis=0)
            for linear in Decoder(model).linears(layer)
        ]
        together = np.concatenate([one.ravel() for one in metrics])
        assert row["score"] == pytest.approx((together > threshold * together.mean()).mean(), abs=1e-4)
    assert len({row["score"] for row in scores}) > 1


def test_alpha_pruning_takes_more_where_the_tail_is_lighter():
    """Exponents 2, 4, 3, 3 with ε = 0.5: factors 0.5, 1.5, 1, 1; blocks of other sizes are brought to the total."""
    pruner = replace(pruner_of("wanda_alpha_pruning"), epsilon=0.5)
    assert pruner.wanted(SIZES, 0.4, rows_of([2, 4, 3, 3])) == pytest.approx([0.2, 0.6, 0.4, 0.4])
    shares = pruner.wanted([100, 300, 100, 100], 0.4, rows_of([2, 4, 3, 3]))
    assert np.dot(shares, [100, 300, 100, 100]) == pytest.approx(0.4 * 600)
    assert shares[1] == pytest.approx(3 * shares[0])


@pytest.mark.parametrize("alpha", [2.0, 3.5])
def test_the_exponent_of_a_power_law_is_found(alpha):
    """A density λ^-α above 1 is a Pareto distribution of shape α - 1, whose logarithms are densest at its beginning."""
    sample = 1 + np.random.default_rng(0).pareto(alpha - 1, 20_000)
    values = torch.from_numpy(np.sort(sample))
    assert hill(values) == pytest.approx(alpha, rel=0.02)
    assert exponent(torch.from_numpy(sample)) == pytest.approx(alpha, rel=0.02)
    # What is below the tail does not matter.
    below = torch.from_numpy(np.random.default_rng(1).uniform(0.01, 0.5, 2_000))
    assert exponent(torch.cat([torch.from_numpy(sample), below])) == pytest.approx(alpha, rel=0.02)


def test_hill_by_hand():
    tail = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    assert hill(tail) == pytest.approx(1 + 4 / (np.log(2) + np.log(4) + np.log(8)))
    assert tail_of(torch.tensor([0.01, 1.0, 1.001, 1.002, 100.0], dtype=torch.float64)) == 4


def test_matrices_without_a_tail_have_no_exponent():
    assert exponent(torch.tensor([3.0])) == float("inf")
    assert exponent(torch.ones(8)) == float("inf")


def test_scores_of_blocks_are_means_over_their_matrices(make_model):
    model, pruner = make_model(), pruner_of("wanda_alpha_pruning")
    scores = pruner.importance(Decoder(model), context_for(pruner, model))
    for layer, row in enumerate(scores):
        weights = [linear.weight.double().numpy() for linear in Decoder(model).linears(layer)]
        spectra = [np.linalg.eigvalsh(w @ w.T if len(w) < len(w.T) else w.T @ w) for w in weights]
        assert row["score"] == pytest.approx(np.mean([exponent(torch.from_numpy(s)) for s in spectra]), rel=1e-3)


@pytest.mark.parametrize(("name", "key"), [("wanda_owl", "reach"), ("wanda_alpha_pruning", "epsilon")])
def test_the_range_decides_how_far_blocks_differ_and_the_total_stays(make_model, name, key):
    zeros, scored = [], set()
    for value in (0.02, 0.2):
        model, pruner = make_model(), replace(pruner_of(name), **{key: value})
        decision = pruner.decide(Decoder(model), parse(0.5), context_for(pruner, model))
        zeros.append([decision.changes[layer].zeros for layer in range(4)])
        scored.add(str(pruner.scoring_identity()))
    rows = sum(linear.weight.shape[0] for linear in Decoder(make_model()).linears(0))
    assert sum(zeros[0]) == pytest.approx(sum(zeros[1]), abs=rows)
    assert np.ptp(zeros[1]) > 5 * np.ptp(zeros[0])
    assert len(scored) == 1
