"""How sure the dense model is, and flips of its choice, against numpy in float64 and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measure.certainty import top
from pipeline.measure.measures import compare
from pipeline.model.head import Head


def expected(z: np.ndarray, delta: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    shifted = (z - z.max(-1, keepdims=True)) / temperature
    p = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
    ordered = np.sort(z, -1)
    return {
        "top1": p.max(-1),
        "entropy": np.log(np.exp(shifted).sum(-1)) - (p * shifted).sum(-1),
        "margin": (ordered[:, -1] - ordered[:, -2]) / temperature,
        "flip": (z.argmax(-1) != (z + delta).argmax(-1)).astype(float),
    }


@settings(deadline=None, max_examples=80)
@given(
    logits=st.floats(-3, 2.5).map(lambda e: 10.0**e),
    scale=st.floats(-3, 2.5).map(lambda e: 10.0**e),
    temperature=st.floats(0.3, 1.3),
    vocabulary=st.integers(2, 400),
    seed=st.integers(0, 2**31),
)
def test_confidence_of_any_distribution(logits, scale, temperature, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    z = logits * torch.randn(5, vocabulary, generator=generator)
    moved = z + scale * torch.randn(5, vocabulary, generator=generator)
    table = compare(z, moved, Head(torch.eye(vocabulary)), [temperature])
    exact = expected(z.double().numpy(), (moved - z).double().numpy(), temperature)
    # What float32 leaves of logits of this size.
    rounding = 2.0**-24 * float(z.abs().max()) / temperature
    np.testing.assert_allclose(table.top1, exact["top1"], rtol=1e-6 + 8 * rounding)
    np.testing.assert_allclose(table.entropy, exact["entropy"], rtol=1e-6, atol=1e-6 + 8 * rounding)
    np.testing.assert_allclose(table.margin, exact["margin"], rtol=1e-6)
    np.testing.assert_array_equal(table.flip, exact["flip"])


def test_flat_and_certain_distributions():
    z = torch.stack([torch.zeros(64), torch.nn.functional.one_hot(torch.tensor(5), 64) * 500.0])
    table = compare(z, z, Head(torch.eye(64)), [1.0])
    np.testing.assert_allclose(table.top1, [1 / 64, 1.0], rtol=1e-6)
    np.testing.assert_allclose(table.entropy, [np.log(64), 0.0], rtol=1e-6)
    assert list(table.margin) == [0.0, 500.0]


@pytest.mark.parametrize(
    ("change", "flipped"),
    [
        ([0.0, 0.0, 0.0], 0),
        ([0.0, 0.9, 0.0], 0),
        ([0.0, 1.0, 0.0], 0),  # a tie leaves the choice
        ([0.0, 1.1, 0.0], 1),
        ([-3.5, 0.0, 0.0], 1),
        ([-9.0, -9.0, -9.0], 0),  # all alike
        ([0.0, 0.0, 5.0], 1),
    ],
)
def test_flips_by_hand(change, flipped):
    z, delta = torch.tensor([[3.0, 2.0, 0.0]]), torch.tensor([change])
    kept = z.clone()
    first, gap, flip = top(z, delta)
    assert (first.item(), gap.item(), flip.item()) == (0, 1.0, flipped)
    assert torch.equal(z, kept)


def test_equal_largest_logits_have_no_margin_and_do_not_flip():
    _, gap, flip = top(torch.tensor([[1.0, 4.0, 4.0]]), torch.zeros(1, 3))
    assert (gap.item(), flip.item()) == (0.0, 0.0)
