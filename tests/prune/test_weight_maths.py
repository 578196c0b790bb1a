"""Masks, input moments, compensation and rounding: pure functions."""

from __future__ import annotations

import pytest
import torch
from helpers import calibration_batches
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.sparsity import parse
from pipeline.model.activations import Activations
from pipeline.model.block_calls import block_calls
from pipeline.model.decoder import Decoder
from pipeline.model.experts import one_expert_at_a_time
from pipeline.prune.base import Context
from pipeline.prune.methods.hessian import Moments, inverse_factor
from pipeline.prune.methods.masks import lowest_overall, lowest_per_row, n_of_m, per_output
from pipeline.prune.methods.rtn import round_to_nearest
from pipeline.prune.methods.sparsegpt import compensate, factorise, gather
from pipeline.prune.methods.wanda import column_energy, metric


def test_masks_are_exact_with_ties_and_refuse_what_they_cannot_do():
    ties = torch.zeros(3, 8)
    assert lowest_per_row(ties, 3).sum(1).tolist() == [3, 3, 3]
    assert lowest_overall(ties, 5).flatten().nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert n_of_m(ties, 2, 4).view(-1, 4).sum(1).tolist() == [2] * 6
    with pytest.raises(ValueError, match="multiple of 3"):
        n_of_m(ties, 1, 3)
    with pytest.raises(ValueError, match="not finite.*dtype=float32"):
        lowest_per_row(torch.tensor([[float("nan"), 1.0]]), 1)


def test_moments_are_the_sum_of_outer_products():
    x = torch.randn(5000, 700, dtype=torch.float64)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-5)):
        given_x, moments = x.to(dtype), Moments(700, x.device)
        for rows in given_x.split(1999):
            moments.add(rows)
        exact = given_x.double().T @ given_x.double() * (2 / 7)
        error = (moments.hessian(7).double() - exact).abs().max() / exact.diagonal().mean()
        assert error < tolerance
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"


def test_a_singular_hessian_takes_more_damping_and_says_so():
    direction = torch.randn(1, 64) * 1e4
    hessian = direction.T @ direction
    hessian[0, 0] -= 0.02 * hessian.diagonal().mean()
    factor, damping = inverse_factor(hessian)
    assert damping > 0.01
    assert torch.isfinite(factor).all()
    with pytest.raises(ValueError, match="stay singular"):
        inverse_factor(torch.diag(torch.tensor([1.0, -1e9])))
    with pytest.raises(ValueError, match="not finite.*dtype=float32"):
        inverse_factor(torch.full((2, 2), float("nan")))


def _problem(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator), torch.randn(300, columns, generator=generator) @ mixing


def _hessian(x: torch.Tensor) -> torch.Tensor:
    moments = Moments(x.shape[1], x.device)
    moments.add(x)
    return moments.hessian(1)


# Sparsities are rounded to 12 digits before they come here.
SHARES = st.floats(0, 1).map(lambda share: round(share, 12))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), SHARES, st.integers(0, 9))
def test_sparsegpt_prunes_exactly_what_was_asked_for(rows, columns, fraction, seed):
    weight, x = _problem(rows, columns, seed)
    pruned, mask = compensate(weight, *factorise(_hessian(x))[:2], parse(fraction))
    assert int(mask.sum()) == int(weight.numel() * fraction)
    assert (pruned[mask] == 0).all()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 3), (5, 7), (100, 150), (200, 300)])
def test_any_n_of_m(n, m):
    columns = m * -(-260 // m)
    weight, x = _problem(6, columns, 0)
    _, mask = compensate(weight, *factorise(_hessian(x))[:2], parse(f"{n}:{m}"))
    assert (mask.view(6, -1, m).sum(-1) == n).all()
    assert (n_of_m(weight.abs(), n, m).view(6, -1, m).sum(-1) == n).all()
    with pytest.raises(ValueError, match=f"multiple of {m}"):
        compensate(weight[:, 1:], *factorise(_hessian(x[:, 1:]))[:2], parse(f"{n}:{m}"))


def test_sparsegpt_keeps_outputs_better_than_wanda_and_wanda_than_magnitude():
    weight, x = _problem(64, 256, 1)
    x = x * torch.logspace(-1, 1, 256)[torch.randperm(256, generator=torch.Generator().manual_seed(0))]
    reference, sparsity = x @ weight.T, parse(0.5)
    updated, _ = compensate(weight, *factorise(_hessian(x))[:2], sparsity)
    wanda = weight.masked_fill(per_output(metric(weight, column_energy(x)), sparsity), 0)
    magnitude = weight.masked_fill(lowest_overall(weight.abs(), weight.numel() // 2), 0)
    errors = [float((x @ w.T - reference).square().mean()) for w in (updated, wanda, magnitude)]
    assert errors[0] < errors[1]
    assert errors[1] < errors[2]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(1, 40), st.integers(1, 70))
def test_rounding_uses_at_most_so_many_values_a_group_and_is_near(bits, group, columns):
    weight = torch.randn(5, columns, generator=torch.Generator().manual_seed(columns))
    rounded = round_to_nearest(weight, bits, group)
    for part, codes in zip(weight.split(group, 1), rounded.split(group, 1), strict=True):
        step = (part.amax(1).clamp(min=0) - part.amin(1).clamp(max=0)) / (2**bits - 1)
        assert all(len(row.unique()) <= 2**bits for row in codes)
        assert ((part - codes).abs() <= step[:, None] * 1.01 + 1e-7).all()
    torch.testing.assert_close(round_to_nearest(rounded, bits, group), rounded, rtol=1e-3, atol=1e-5)


def test_rounding_keeps_zeros_and_refuses_odd_widths():
    weight = torch.zeros(2, 8)
    weight[0, 3] = 1.5
    assert torch.equal(round_to_nearest(weight, 4, 4), weight)
    with pytest.raises(ValueError, match="from 2 to 8"):
        round_to_nearest(weight, 16, 4)


def test_activation_aware_rounding_is_never_worse_than_plain(make_settings, make_model):
    """By the error that it minimises, block by block; with outlier channels it is clearly better."""
    awq = make_settings("pruner=awq", "pruner.group=16").pruner
    model = make_model()
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[:2] = 40
    decision = awq.decide(Decoder(model), parse(0), Context(calibration_batches(), changes={}))
    rows = {row["sublayer"]: row for row in decision.scores}
    assert all(0 <= row["alpha"] <= 1 for row in rows.values())
    assert rows["model.layers.0.self_attn.q_proj.weight"]["alpha"] > 0


def test_moments_are_gathered_for_every_matrix_once(make_model, architecture):
    from pipeline.prune.methods.blockwise import CalibratedBlock

    decoder, states = Decoder(make_model(architecture)), Activations(2**30, None)
    with torch.no_grad(), one_expert_at_a_time(decoder.model):
        calls = block_calls(decoder, calibration_batches(), states)
        block = CalibratedBlock(decoder, 0, decoder.linears(0), states, [each[0] for each in calls], 4)
        names = [name for moments in gather(block) for group in moments for name in group]
    assert sorted(names) == sorted(w.name for w in decoder.linears(0))
