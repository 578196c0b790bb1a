from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.measures import compare as module
from pipeline.measures.compare import COLUMNS, Head, compare


def naive(h: torch.Tensor, h2: torch.Tensor, weight: torch.Tensor, temperature: float) -> dict[str, torch.Tensor]:
    """The definitions, written out in float64."""
    h, h2, weight = h.double(), h2.double(), weight.double()
    z, z2 = h @ weight.T, h2 @ weight.T
    p, q = torch.softmax(z / temperature, -1), torch.softmax(z2 / temperature, -1)
    dz = z2 - z

    def parts(x, dx):
        along = (x * dx).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True) * x
        return along.square().sum(-1) / x.square().sum(-1), (dx - along).square().sum(-1) / x.square().sum(-1)

    def variance(weights):
        mean = (weights * dz).sum(-1, keepdim=True)
        return (weights * (dz - mean).square()).sum(-1)

    r = p.square() / p.square().sum(-1, keepdim=True)
    par_h, orth_h = parts(h, h2 - h)
    par_z, orth_z = parts(z, dz)
    var_p, var_r = variance(p), variance(r)
    kl = (p * (torch.log_softmax(z / temperature, -1) - torch.log_softmax(z2 / temperature, -1))).sum(-1)
    return {
        "cos_h": torch.cosine_similarity(h, h2),
        "cos_z": torch.cosine_similarity(z, z2),
        "cos_p": torch.cosine_similarity(p, q),
        "kl": kl,
        "orth_h": orth_h,
        "orth_z": orth_z,
        "par_h": par_h,
        "par_z": par_z,
        "var_p": var_p,
        "var_r": var_r,
        "var_uniform": dz.var(-1, unbiased=False),
        "rms_dz": dz.square().mean(-1).sqrt(),
        "est_cos_h": 1 - orth_h / 2,
        "est_cos_z": 1 - orth_z / 2,
        "est_cos_p": 1 - var_r / (2 * temperature**2),
        "est_kl": var_p / (2 * temperature**2),
    }


def states(scale: float, positions: int = 9, width: int = 32, vocabulary: int = 700):
    generator = torch.Generator().manual_seed(7)
    h = torch.randn(positions, width, generator=generator)
    h2 = h + scale * torch.randn(positions, width, generator=generator)
    return h, h2, torch.randn(vocabulary, width, generator=generator)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.3])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 30.0])
def test_every_measure_agrees_with_its_definition(scale, temperature):
    h, h2, weight = states(scale)
    table, expected = compare(h, h2, Head(weight), [temperature]), naive(h, h2, weight, temperature)
    for name in COLUMNS:
        found, exact = table[name].to_numpy(), expected[name].numpy()
        if name.startswith(("cos", "est_cos")):  # near 1 what matters is the deviation
            found, exact = 1 - found, 1 - exact
        np.testing.assert_allclose(found, exact, rtol=2e-4, atol=2e-13, err_msg=name)


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-6])
def test_tiny_deviations_keep_their_digits(scale):
    h, h2, weight = states(scale)
    table, expected = compare(h, h2, Head(weight), [1.0]), naive(h, h2, weight, 1.0)
    np.testing.assert_allclose(table.kl, expected["kl"].numpy(), rtol=1e-3, atol=1e-17)
    np.testing.assert_allclose(table.kl, table.est_kl, rtol=0.1)
    np.testing.assert_allclose(1 - table.cos_p, 1 - table.est_cos_p, rtol=0.1, atol=3e-16)


def test_equal_states_measure_exactly_zero():
    h, _, weight = states(1.0)
    table = compare(h, h.clone(), Head(weight), [0.5, 1.0])
    for name in COLUMNS:
        assert (table[name] == (1.0 if "cos" in name else 0.0)).all(), name


def test_opposite_states():
    h, _, weight = states(1.0)
    table = compare(h, -h, Head(weight), [1.0])
    np.testing.assert_allclose(table.cos_h, -1, atol=1e-6)
    np.testing.assert_allclose(table.cos_z, -1, atol=1e-6)


def test_rows_come_by_position_then_temperature_and_do_not_depend_on_the_blocking(monkeypatch):
    h, h2, weight = states(0.1)
    whole = compare(h, h2, Head(weight), [1.0, 0.5])
    assert list(zip(whole.position, whole.temperature, strict=True))[:3] == [(0, 1.0), (0, 0.5), (1, 1.0)]
    monkeypatch.setattr(module, "_BLOCK", 3 * len(weight))
    monkeypatch.setattr(module, "_TILE", 2 * len(weight))
    cut = compare(h, h2, Head(weight), [1.0, 0.5])
    assert list(cut.position) == list(whole.position)
    np.testing.assert_allclose(cut[COLUMNS], whole[COLUMNS], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_a_bias_and_a_cap_of_the_logits_count(scale):
    """As if the perturbed logits were computed as the model computes them."""
    h, h2, weight = states(scale)
    bias, cap = torch.linspace(-3, 3, len(weight)), 5.0
    table = compare(h, h2, Head(weight, bias, cap), [1.0])
    z, z2 = (cap * torch.tanh((x.double() @ weight.double().T + bias.double()) / cap) for x in (h, h2))
    kl = (z.softmax(-1) * (z.log_softmax(-1) - z2.log_softmax(-1))).sum(-1)
    np.testing.assert_allclose(table.kl, kl, rtol=2e-3, atol=1e-10)
    np.testing.assert_allclose(1 - table.cos_z, 1 - torch.cosine_similarity(z, z2), rtol=2e-3, atol=1e-7)
    same = compare(h, h, Head(weight, bias, cap), [1.0])
    assert (same.kl == 0).all()
    assert (same.cos_z == 1).all()
