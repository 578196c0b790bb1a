"""A sparsity for each block: the arithmetic, the curves behind it, and what the pruners make of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import calibration_batches, context_for, pruner_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import chosen

from pipeline.check.command_line import problems
from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.model.trajectory import forwards
from pipeline.prune.accounting import account
from pipeline.prune.decision import Change
from pipeline.prune.methods.allocated import GRID
from pipeline.prune.methods.allocation import allocate, convex, settle, smooth
from pipeline.prune.methods.masks import per_output
from pipeline.prune.methods.wanda import Wanda, column_energy, metric
from pipeline.prune.stage import PruningDecision
from pipeline.prune.surgery import changed_weights
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Store

METHODS = {"wanda_divergence": "wanda", "sparsegpt_divergence": "sparsegpt", "magnitude_divergence": "magnitude"}
COSTS = st.lists(st.floats(0, 3), min_size=len(GRID), max_size=len(GRID))
BLOCKS = st.lists(st.tuples(COSTS, st.integers(1, 10**7)), min_size=1, max_size=6)
SHARES = st.floats(0.01, 0.79)


def curve(costs):
    """A measured curve that rises by ``costs`` from one sparsity to the next."""
    return smooth(list(zip(GRID, np.cumsum(costs), strict=True)))


def cost(curves, shares) -> float:
    """What shares cost on the convex curves."""
    return sum(np.interp(share, *convex(each)) for each, share in zip(curves, shares, strict=True))


# --- arithmetic ----------------------------------------------------------------------------------------------------


@chosen(2)
@given(BLOCKS, SHARES)
def test_the_total_is_met_within_bounds_and_costs_no_more_than_equal_shares(blocks, share):
    curves, sizes = [curve(costs) for costs, _ in blocks], [size for _, size in blocks]
    shares = allocate(curves, sizes, share)
    assert np.dot(shares, sizes) == pytest.approx(share * sum(sizes), rel=1e-9)
    assert min(shares) >= 0
    assert max(shares) <= GRID[-1] + 1e-9
    assert cost(curves, shares) <= cost(curves, [share] * len(blocks)) * (1 + 1e-9) + 1e-9


@chosen()
@given(BLOCKS, SHARES, st.randoms(use_true_random=False))
def test_the_order_of_blocks_does_not_matter(blocks, share, random):
    order = list(range(len(blocks)))
    random.shuffle(order)
    curves, sizes = [curve(costs) for costs, _ in blocks], [size for _, size in blocks]
    shares = allocate(curves, sizes, share)
    shuffled = allocate([curves[at] for at in order], [sizes[at] for at in order], share)
    assert shuffled == pytest.approx([shares[at] for at in order], abs=1e-6)


@chosen()
@given(COSTS, st.integers(1, 10**7), st.integers(1, 6), SHARES)
def test_equal_blocks_get_equal_shares(costs, size, count, share):
    assert allocate([curve(costs)] * count, [size] * count, share) == pytest.approx([share] * count)


@chosen()
@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=5), st.floats(0.1, 0.3))
def test_quadratic_costs_have_the_shares_of_their_solution(factors, share):
    """Of ``a·s²`` in blocks of one size the cheapest shares go with ``1/a``."""
    fine = np.linspace(0, 2, 2001)
    found = allocate([(fine, a * fine**2) for a in factors], [100] * len(factors), share)
    inverse = 1 / np.array(factors)
    assert found == pytest.approx(share * inverse / inverse.mean(), abs=0.002)


def test_dear_weights_are_spared_and_sizes_count():
    """Twice the cost for twice the weights is the same price."""
    flat = np.array([0.0, 0.5, 0.9])
    cheap, dear = (flat, np.array([0.0, 0.1, 0.3])), (flat, np.array([0.0, 1.0, 3.0]))
    assert allocate([cheap, dear], [10, 10], 0.45) == pytest.approx([0.9, 0.0])
    assert allocate([cheap, dear], [10, 100], 0.45) == pytest.approx([0.45, 0.45])


def test_what_cannot_be_had_is_refused():
    with pytest.raises(ValueError, match="cannot be reached"):
        allocate([curve([1.0] * len(GRID))] * 2, [5, 5], 0.95)
    flat = np.array([0.3, 0.6])
    with pytest.raises(ValueError, match="cannot be reached"):
        allocate([(flat, flat)] * 2, [5, 5], 0.2)
    with pytest.raises(ValueError, match="are not a curve"):
        smooth([(0.5, 1.0), (0.5, 1.0)])
    with pytest.raises(ValueError, match="are not a curve"):
        smooth([(0.0, 1.0)])


@chosen()
@given(COSTS)
def test_curves_pass_through_what_was_measured_and_never_fall(costs):
    x, y = curve(costs)
    assert y[0] == 0
    assert (np.diff(y) >= -1e-9).all()
    assert np.interp(GRID, x, y) == pytest.approx(np.cumsum(costs), rel=1e-6, abs=1e-9)
    hull_x, hull_y = convex((x, y))
    assert (hull_x[[0, -1]] == x[[0, -1]]).all()
    assert (np.interp(x, hull_x, hull_y) <= y + 1e-9).all()
    assert (np.diff(np.diff(hull_y) / np.diff(hull_x)) > 0).all()


def test_a_measurement_that_falls_is_noise():
    x, y = smooth([(0.2, 1.0), (0.4, 0.5), (0.6, 2.0)])
    assert np.interp([0.2, 0.4, 0.6], x, y) == pytest.approx([1.0, 1.0, 2.0])
    assert (np.diff(y) >= 0).all()


@chosen()
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50), SHARES), min_size=1, max_size=6))
def test_rounding_is_made_up_for(blocks):
    """As many weights as equal shares take, short of what one more block would add at once."""
    share = float(np.average([s for _, _, s in blocks], weights=[r * c for r, c, _ in blocks]))

    def zeros(block: int, share: float) -> int:
        rows, columns, _ = blocks[block]
        return rows * int(columns * share)

    target = sum(zeros(block, share) for block in range(len(blocks)))
    settled = settle([s for _, _, s in blocks], zeros, target)
    total = sum(zeros(block, s) for block, s in enumerate(settled))
    assert target - max(rows for rows, _, _ in blocks) < total <= target
    same = settle([share] * len(blocks), zeros, target)
    assert [zeros(block, s) for block, s in enumerate(same)] == [zeros(block, share) for block in range(len(blocks))]


def test_of_blocks_that_round_alike_as_many_give_more_as_there_is_room_for():
    def zeros(block: int, share: float) -> int:
        return 7 * int(10 * share)

    assert [zeros(0, share) for share in settle([0.55] * 3, zeros, 7 * 17 + 3)] == [42, 42, 35]


# --- pruners -------------------------------------------------------------------------------------------------------


def decided(name, sparsity, model):
    pruner = pruner_of(name)
    return pruner.decide(Decoder(model), parse(sparsity), context_for(pruner, model))


def zeros_by_block(decision) -> list[int]:
    return [decision.changes[layer].zeros for layer in sorted(decision.changes)]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["llama", "mixtral", "gpt2"])
def test_as_many_weights_go_as_from_equal_shares(make_model, name, kind):
    found, model = decided(name, 0.4, make_model(kind)), make_model(kind)
    equal = decided(METHODS[name], 0.4, model)
    total, wanted = sum(zeros_by_block(found)), sum(zeros_by_block(equal))
    rows = sum(w.weight.shape[0] for w in Decoder(model).linears(0))
    assert wanted - rows < total <= wanted
    achieved = account(Decoder(make_model(kind)), found)
    assert achieved.achieved == pytest.approx(account(Decoder(make_model(kind)), equal).achieved, rel=0.005)
    assert max(achieved.achieved_by_layer) > min(achieved.achieved_by_layer) + 0.01


@pytest.mark.parametrize("share", [0.13, 0.29, 0.4, 0.55, 0.71])
def test_wandas_rounding_row_by_row_is_made_up_for(make_model, share):
    """With made-up curves: short of equal shares by less than what one block's rows add at once."""
    decoder, costs = Decoder(make_model()), np.random.default_rng(0).uniform(0.1, 1, (4, len(GRID))).cumsum(1)
    rows = [{"layer": at, "sparsity": s, "score": costs[at, step]} for at in range(4) for step, s in enumerate(GRID)]
    shapes = [tuple(w.weight.shape) for w in decoder.linears(0)]

    def zeros(share: float) -> int:
        return sum(height * int(width * share) for height, width in shapes)

    shares = pruner_of("wanda_divergence").shares(decoder, share, rows)
    assert max(shares) > min(shares) + 0.01
    assert 4 * zeros(share) - sum(height for height, _ in shapes) < sum(map(zeros, shares)) <= 4 * zeros(share)


@pytest.mark.parametrize("name", METHODS)
def test_a_block_that_matters_little_gives_most(make_model, name):
    model = make_model()
    with torch.no_grad():
        model.model.layers[2].self_attn.o_proj.weight.mul_(0.01)
        model.model.layers[2].mlp.down_proj.weight.mul_(0.01)
    decision = decided(name, 0.5, model)
    counts = zeros_by_block(decision)
    assert counts[2] == max(counts)
    assert counts[2] > 1.2 * sum(counts) / 4
    curves = [row for row in decision.scores if "chosen" in row]
    assert [(row["layer"], row["sparsity"]) for row in curves] == [(at, s) for at in range(4) for s in GRID]
    by_row = {row["layer"]: row["chosen"] for row in curves}
    size = sum(w.weight.numel() for w in Decoder(model).linears(0))
    assert [count / size for count in counts] == pytest.approx([by_row[at] for at in range(4)], abs=0.02)


@pytest.mark.parametrize("name", METHODS)
def test_curves_are_what_full_passes_say_and_leave_the_model_as_it_was(make_model, name):
    """One block masked by what plain hooks see of the dense model, everything in float64."""
    model, pruner = make_model(), replace(pruner_of(name), confidence=4.0)
    context = context_for(pruner, model)
    before = {key: value.clone() for key, value in model.named_parameters()}
    rows = pruner.importance(Decoder(model), context)
    assert all(torch.equal(before[key], value) for key, value in model.named_parameters())
    linears, energy = Decoder(model).linears(1), {}
    for linear in linears:
        linear.module.register_forward_pre_hook(
            lambda m, args, n=linear.name: energy.update({n: energy.get(n, 0) + column_energy(args[0])})
        )
    with torch.inference_mode():
        for batch in calibration_batches():
            model(batch)
    masks = {}
    for linear in linears:
        if name == "magnitude_divergence":
            weight = linear.weight.abs()
            masks[linear.parameter] = weight <= weight.flatten().kthvalue(int(weight.numel() * GRID[2])).values
        else:
            masks[linear.parameter] = per_output(metric(linear.weight, energy[linear.name] / 4), parse(GRID[2]))

    def log_probabilities():
        states = torch.cat([part.at_predictions(part.run(model)) for part in forwards(context.trajectory, tight=True)])
        return torch.log_softmax(model.get_output_embeddings()(states).double(), -1)

    with torch.inference_mode():
        dense = log_probabilities()
        with changed_weights(model, Change(masks), masks):
            other = log_probabilities()
    weights = dense.exp().amax(-1) ** 4
    expected = float((weights * (dense.exp() * (dense - other)).sum(-1)).sum() / weights.sum())
    row = next(row for row in rows if (row["layer"], row["sparsity"]) == (1, GRID[2]))
    assert row["score"] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_curves_are_measured_once_for_every_sparsity_and_shared(make_settings, tmp_path):
    """One artifact for two sparsities of Wanda and for SparseGPT; its own for magnitude."""
    store = Store(tmp_path / "outputs")

    def kept(*overrides: str) -> int:
        stages = Workbench(make_settings("dtype=float32", *overrides), store)
        assert stages.make(PruningDecision).path.is_dir()
        return len(list((tmp_path / "outputs" / "store" / "importance").iterdir()))

    assert kept("pruner=wanda_divergence", "sparsity=0.3") == 1
    assert kept("pruner=wanda_divergence", "sparsity=0.5") == 1
    assert kept("pruner=sparsegpt_divergence", "sparsity=0.5") == 1
    assert kept("pruner=magnitude_divergence", "sparsity=0.5") == 2


def test_another_version_of_wanda_has_curves_and_outliers_of_its_own(monkeypatch):
    names = ("wanda_divergence", "sparsegpt_divergence", "wanda_owl", "magnitude_divergence", "wanda_alpha_pruning")
    pruners = [pruner_of(name) for name in names]
    before = [pruner.scoring_identity() for pruner in pruners]
    monkeypatch.setattr(Wanda, "version", Wanda.version + 1)
    changed = [pruner.scoring_identity() != old for pruner, old in zip(pruners, before, strict=True)]
    assert changed == [True, True, True, False, False]


def test_what_it_cannot_do_is_refused_in_a_sentence(make_model):
    with pytest.raises(ValueError, match=r"more than 0\.8.*give at most"):
        decided("wanda_divergence", 0.85, make_model())
    for name in METHODS:
        (problem,) = problems([f"pruner={name}", "sparsity=2of4"], multirun=False)
        assert f"pruner={name} takes a fraction between 0 and 1" in problem
