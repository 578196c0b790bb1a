"""Exchanges of weights: against a plain loop over rows, and on a whole block that loses less of its mean output."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import calibration_batches, context_for, pruner_of

from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.prune.methods.dsnot import exchanged, inputs_of


def one_row(mask, terms, size, variance, cycles, threshold, group):
    """Exchange weights of one row as the definition says, candidate by candidate."""
    mask, columns = list(mask), range(len(mask))
    error = sum(terms[j] for j in columns if mask[j])
    first, returned, lost = error, set(), set()
    for _ in range(cycles):
        if abs(error) <= threshold:
            break
        up = error > 0
        back = [j for j in columns if mask[j] and j not in lost and (terms[j] > 0) == up and terms[j] != 0]
        if not back:
            break
        best = max(back, key=lambda j: abs(terms[j]) / variance[j])
        if group:
            start = best // group * group
            go = [j for j in range(start, start + group) if not mask[j] and j not in returned]
        else:
            go = [j for j in columns if not mask[j] and j not in returned and (terms[j] < 0) == up and terms[j] != 0]
        if not go:
            break
        least = min(go, key=lambda j: size[j])
        after = error + terms[least] - terms[best]
        if group and (after > 0) != (first > 0):
            break
        mask[best], mask[least], error = False, True, after
        returned.add(best)
        lost.add(least)
    return mask


@pytest.mark.parametrize("group", [0, 4])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("cycles", [1, 3, 50])
def test_rows_are_exchanged_as_by_a_plain_loop(cycles, threshold, group):
    numbers = torch.Generator().manual_seed(cycles)
    terms, size = torch.randn(30, 16, generator=numbers), torch.rand(30, 16, generator=numbers)
    variance = torch.rand(16, generator=numbers) + 0.1
    order = size.view(30, -1, 4).argsort(-1) if group else size.argsort(-1)
    mask = torch.zeros_like(size.view(order.shape), dtype=torch.bool)
    mask = mask.scatter(-1, order[..., : order.shape[-1] // 2], True).view(30, 16)
    found = exchanged(mask, terms, size, variance, cycles, threshold, group)
    expected = [
        one_row(*(x.tolist() for x in (mask[i], terms[i], size[i], variance)), cycles, threshold, group)
        for i in range(30)
    ]
    assert found.tolist() == expected
    assert found.tolist() != mask.tolist()
    assert (found.sum(1) == 8).all()
    if group:
        assert (found.view(30, -1, 4).sum(-1) == 2).all()


def test_one_exchange_by_hand():
    """Row of terms 3, -1 pruned and -2, 4 kept: the error 2 is lessened by 3 coming back and -2 going."""
    terms, mask = torch.tensor([[3.0, -1.0, -2.0, 4.0]]), torch.tensor([[True, True, False, False]])
    size = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert exchanged(mask, terms, size, torch.ones(4), 1, 0.1).tolist() == [[False, True, True, False]]
    assert torch.equal(exchanged(mask, terms, size, torch.ones(4), 1, 2.0), mask)


def test_a_block_loses_less_of_its_mean_outputs_than_with_wanda(make_model):
    """The mean over the text of what each pruned matrix of block 0 gives, beside what it gave."""
    inputs: dict[str, list[torch.Tensor]] = {}
    model = make_model()
    for linear in Decoder(model).linears(0):
        linear.module.register_forward_pre_hook(
            lambda module, args, name=linear.parameter: inputs.setdefault(name, []).append(args[0].flatten(0, 1))
        )
    with torch.inference_mode():
        for batch in calibration_batches():
            model(batch)
    losses = {}
    for name in ("wanda", "dsnot"):
        pruner, other, dense = pruner_of(name), make_model(), make_model()
        masks = pruner.decide(Decoder(other), parse(0.5), context_for(pruner, other)).changes[0].masks
        losses[name] = {
            key: float((torch.cat(inputs[key]).mean(0) @ (dense.get_parameter(key).data * mask).T).abs().mean())
            for key, mask in masks.items()
        }
    assert all(losses["dsnot"][key] < 0.3 * losses["wanda"][key] for key in losses["wanda"])


def test_a_large_threshold_leaves_wandas_masks(make_model):
    model, pruner = make_model(), replace(pruner_of("dsnot"), threshold=1e9)
    wanda, other = pruner_of("wanda"), make_model()
    found = pruner.decide(Decoder(model), parse("2:4"), context_for(pruner, model))
    expected = wanda.decide(Decoder(other), parse("2:4"), context_for(wanda, other))
    for layer, change in expected.changes.items():
        assert all(torch.equal(found.changes[layer].masks[key], mask) for key, mask in change.masks.items())


def test_a_small_variance_beside_a_large_mean_is_kept(make_model):
    """In two batches of unequal size and an empty one, beside numpy's in float64."""
    batches = (slice(0, 300), slice(300, 300), slice(300, 400))
    numbers = np.random.default_rng(0)
    mean, spread = np.array([0.0, 30.0, 100.0]), np.array([1.0, 0.05, 0.01])
    x = (mean + spread * numbers.standard_normal((400, 3))).astype(np.float32)
    block = SimpleNamespace(sequences=2, watch=lambda add: [add(("w",), torch.tensor(x[part])) for part in batches])
    found = inputs_of(block)["w"]
    assert found.variance.numpy() == pytest.approx(x.astype(float).var(0), rel=1e-3)
    assert found.mean.numpy() == pytest.approx(x.sum(0, dtype=float) / 2, rel=1e-6)
