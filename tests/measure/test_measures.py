"""Measures of pairs of states against their definitions in float64, and what holds for any input."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive import DEVIATIONS, assert_agrees, largest_logit, naive

from pipeline.measure import measures as module
from pipeline.measure.measures import COLUMNS, compare
from pipeline.model.head import Head

TEMPERATURES = [0.3, 1.0, 1.3]


def states(scale: float, positions: int = 9, width: int = 32, vocabulary: int = 700, size: float = 1.0):
    generator = torch.Generator().manual_seed(7)
    h = size * torch.randn(positions, width, generator=generator)
    h2 = h + scale * torch.randn(positions, width, generator=generator)
    return h, h2, Head(torch.randn(vocabulary, width, generator=generator))


def by_hand(logits: float, scale: float, positions: int = 6, vocabulary: int = 300):
    """States that are their own logits, exactly."""
    generator = torch.Generator().manual_seed(3)
    z = logits * torch.randn(positions, vocabulary, generator=generator)
    return z, z + scale * torch.randn(positions, vocabulary, generator=generator), Head(torch.eye(vocabulary))


def check(h: torch.Tensor, h2: torch.Tensor, head: Head, where: str = "") -> None:
    table = compare(h, h2, head, TEMPERATURES)
    for temperature, rows in table.groupby("temperature"):
        largest = largest_logit(h, head, temperature)
        assert_agrees(rows, naive(h, h2, head, temperature), largest, where=f"{where} T={temperature}")


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 0.1, 1.0, 30.0])
def test_every_measure_agrees_with_its_definition(scale):
    check(*states(scale))


@pytest.mark.parametrize("logits", [0.01, 1.0, 10.0, 200.0])
@pytest.mark.parametrize("scale", [1e-4, 0.01, 1.0, 20.0, 400.0])
def test_flat_and_peaked_distributions_with_tiny_and_huge_perturbations(logits, scale):
    check(*by_hand(logits, scale))


def test_rows_of_very_different_perturbations_do_not_spoil_each_other():
    z, _, head = by_hand(2.0, 0.0)
    scales = torch.tensor([1e-6, 1e-5, 1e-4, 1e-2, 1.0, 300.0]).unsqueeze(-1)
    moved = z + scales * torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    check(z, moved, head)
    together = compare(z, moved, head, [1.0])
    alone = [compare(a, b, head, [1.0]) for a, b in zip(z.split(1), moved.split(1), strict=True)]
    np.testing.assert_allclose(together.kl, [float(table.kl[0]) for table in alone], rtol=1e-6)


def exact_kl(z: torch.Tensor, moved: torch.Tensor) -> float:
    """KL of one row with forty digits."""
    with mpmath.workdps(40):
        a, b = ([mpmath.mpf(float(value)) for value in row] for row in (z, moved))
        total, other = (mpmath.fsum(map(mpmath.exp, row)) for row in (a, b))
        weighted = mpmath.fsum(mpmath.exp(x) / total * (x - y) for x, y in zip(a, b, strict=True))
        return float(weighted + mpmath.log(other) - mpmath.log(total))


@pytest.mark.parametrize(("scale", "size"), [(1e-3, 1e-6), (1e-4, 1e-8), (1e-5, 1e-10), (1e-6, 1e-12)])
def test_tiny_divergences_keep_their_digits(scale, size):
    """Far below what subtracting logarithms of float32 or even float64 probabilities would leave."""
    z, moved, head = by_hand(2.0, scale)
    table = compare(z, moved, head, [1.0])
    exact = [exact_kl(a, b) for a, b in zip(z, moved, strict=True)]
    assert max(exact) < size
    np.testing.assert_allclose(table.kl, exact, rtol=1e-5)
    np.testing.assert_allclose(table.kl, table.est_kl, rtol=10 * scale)


def test_equal_states_measure_exactly_zero():
    h, _, head = states(1.0)
    table = compare(h, h.clone(), head, [0.5, 1.0])
    for name in DEVIATIONS:
        assert (table[name] == (1.0 if "cos" in name else 0.0)).all(), name


def test_opposite_states():
    h, _, head = states(1.0)
    table = compare(h, -h, head, [1.0])
    np.testing.assert_allclose(table.cos_h, -1, atol=1e-6)
    np.testing.assert_allclose(table.cos_z, -1, atol=1e-6)


def test_no_positions_give_an_empty_table():
    h, h2, head = states(1.0)
    table = compare(h[:0], h2[:0], head, [0.5, 1.0])
    assert list(table.columns) == ["position", "temperature", *COLUMNS]
    assert len(table) == 0


def test_rows_come_by_position_then_temperature():
    table = compare(*states(0.1), [1.0, 0.5])
    assert list(zip(table.position, table.temperature, strict=True)) == [(n, t) for n in range(9) for t in (1.0, 0.5)]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 10.0])
@pytest.mark.parametrize("cap", [None, 5.0])
def test_a_bias_and_a_cap_of_the_logits_count(scale, cap):
    """As if the perturbed logits were computed as the model computes them."""
    h, h2, head = states(scale)
    head = Head(head.weight, torch.linspace(-3, 3, 700), cap)
    table, expected = compare(h, h2, head, [1.0]), naive(h, h2, head, 1.0)
    # A capped change is a difference of two capped logits, so it has their rounding and no more.
    rtol = 1e-5 if cap is None else 1e-5 + 1e-6 / scale
    assert_agrees(table, expected, 25.0 if cap is None else cap, rtol)
    same = compare(h, h, head, [1.0])
    assert (same.kl == 0).all() and (same.cos_z == 1).all() and (same.flip == 0).all()


def test_float64_states_are_measured_in_float64():
    h, h2, head = states(0.1)
    h, h2 = h.double(), h2.double() + 1e-12
    table, expected = compare(h, h2, head, [0.7]), naive(h, h2, head, 0.7)
    for name, exact in expected.items():
        found = 1 - table[name] if "cos" in name else table[name]
        np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-13, err_msg=name)


def test_half_precision_states_are_measured_in_float32():
    h, h2, head = states(0.1)
    half = compare(h.bfloat16(), h2.bfloat16(), Head(head.weight.bfloat16()), [1.0])
    full = compare(h.bfloat16().float(), h2.bfloat16().float(), Head(head.weight.bfloat16().float()), [1.0])
    assert half.equals(full)


# Any size of logits from almost flat to hundreds apart, any size of perturbation, any temperature and shape.
anything = given(
    logits=st.floats(-3, 2.5).map(lambda e: 10.0**e),
    scale=st.floats(-6, 2.5).map(lambda e: 10.0**e),
    temperature=st.floats(0.3, 1.3),
    vocabulary=st.integers(2, 200),
    seed=st.integers(0, 2**31),
)


def random_logits(logits: float, scale: float, vocabulary: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = logits * torch.randn(4, vocabulary, generator=generator)
    return z, z + scale * torch.randn(4, vocabulary, generator=generator)


@settings(deadline=None, max_examples=150)
@anything
@example(logits=200.0, scale=300.0, temperature=0.3, vocabulary=200, seed=0)
def test_measures_stay_in_their_ranges(logits, scale, temperature, vocabulary, seed):
    z, moved = random_logits(logits, scale, vocabulary, seed)
    table = compare(z, moved, Head(torch.eye(vocabulary)), [temperature])
    assert np.isfinite(table[COLUMNS]).all().all()
    rounding = 1e-6
    assert (table.kl >= -1e-15).all()
    for name in ("cos_h", "cos_z", "cos_p"):
        assert table[name].between(-1 - rounding, 1).all(), name
    assert (table.cos_p >= 0).all()
    for name in ("orth_h", "orth_z", "par_h", "par_z", "var_p", "var_r", "var_uniform", "rms_dz", "entropy", "margin"):
        assert (table[name] >= 0).all(), name
    assert table.top1.between((1 - rounding) / vocabulary, 1 + rounding).all()
    assert (table.entropy <= math.log(vocabulary) * (1 + rounding) + rounding).all()
    assert set(table.flip) <= {0.0, 1.0}


@settings(deadline=None, max_examples=60)
@anything
def test_values_do_not_depend_on_how_positions_are_cut(logits, scale, temperature, vocabulary, seed):
    z, moved = random_logits(logits, scale, vocabulary, seed)
    head = Head(torch.eye(vocabulary))
    whole = compare(z, moved, head, [temperature])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 3 * vocabulary)
        patch.setattr(module, "TILE", 2 * vocabulary)
        cut = compare(z, moved, head, [temperature])
        patch.setattr(module, "_BLOCK", 1)
        patch.setattr(module, "TILE", 1)
        single = compare(z, moved, head, [temperature])
    for other in (cut, single):
        np.testing.assert_allclose(other[COLUMNS], whole[COLUMNS], rtol=1e-6, atol=1e-12)


@settings(deadline=None, max_examples=60)
@anything
def test_scaling_states_and_temperature_alike_changes_only_what_is_in_logits(
    logits, scale, temperature, vocabulary, seed
):
    """By a power of two, so that not even rounding differs."""
    z, moved = random_logits(logits, scale, vocabulary, seed)
    head = Head(torch.eye(vocabulary))
    once, twice = compare(z, moved, head, [temperature]), compare(4 * z, 4 * moved, head, [4 * temperature])
    in_logits = {"var_p": 16, "var_r": 16, "var_uniform": 16, "rms_dz": 4}
    for name in COLUMNS:
        np.testing.assert_allclose(twice[name], once[name] * in_logits.get(name, 1), rtol=1e-5, atol=1e-14)


@settings(deadline=None, max_examples=60)
@anything
def test_what_all_logits_gain_alike_changes_no_probability(logits, scale, temperature, vocabulary, seed):
    z, _ = random_logits(logits, scale, vocabulary, seed)
    size = 2.0 ** round(math.log2(scale))
    table = compare(z, z, Head(torch.eye(vocabulary), torch.full((vocabulary,), size)), [temperature])
    assert (table.kl == 0).all()
    shift = Head(torch.cat([torch.eye(vocabulary), torch.ones(vocabulary, 1)], 1))
    before, after = (torch.cat([z, torch.full((4, 1), value)], 1) for value in (0.0, size))
    moved = compare(before, after, shift, [temperature])
    np.testing.assert_allclose(moved.kl, 0, atol=1e-9 * (1 + size))
    np.testing.assert_allclose(moved.rms_dz, size, rtol=1e-6)
    assert (moved.flip == 0).all()
