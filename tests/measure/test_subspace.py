"""Deviation inside sets of tokens, ranks, and random sets of matched ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from pipeline.measure.subspace import margins, rank_matched, ranks, subspace


@settings(deadline=None, max_examples=80)
@given(
    logits=st.floats(-3, 2.5).map(lambda e: 10.0**e),
    scale=st.floats(-4, 2.5).map(lambda e: 10.0**e),
    temperature=st.floats(0.3, 1.3),
    size=st.integers(2, 10),
    seed=st.integers(0, 2**31),
)
def test_a_set_is_measured_as_a_vocabulary_of_its_own(logits, scale, temperature, size, seed):
    generator = torch.Generator().manual_seed(seed)
    z = logits * torch.randn(6, size, generator=generator)
    delta = scale * torch.randn(6, size, generator=generator)
    found = {name: value.numpy() for name, value in subspace(z, delta, temperature).items()}
    before, after = (x.double().numpy() / temperature for x in (z, z.double() + delta))
    log_p, log_q = log_softmax(before, -1), log_softmax(after, -1)
    p, q = np.exp(log_p), np.exp(log_q)
    kl = (p * (log_p - log_q)).sum(-1)
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-6, atol=1e-14 * (1 + np.abs(before).max()))
    cosine = (p * q).sum(-1) / np.linalg.norm(p, axis=-1) / np.linalg.norm(q, axis=-1)
    np.testing.assert_allclose(found["cos_p"], cosine, atol=1e-12)
    winner = before.argmax(-1)
    np.testing.assert_array_equal(found["flip"], after.argmax(-1) != winner)
    for name, values in (("margin_dense", before), ("margin_pruned", after)):
        rivals = [np.delete(row, best).max() for row, best in zip(values, winner, strict=True)]
        expected = values[range(6), winner] - rivals
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-12 * np.abs(values).max())


def test_an_unchanged_set_deviates_by_exactly_nothing():
    found = subspace(torch.tensor([[3.0, 1.0, 2.0]]), torch.zeros(1, 3), 0.7)
    assert (found["kl"].item(), found["cos_p"].item(), found["flip"].item()) == (0.0, 1.0, 0.0)
    assert found["margin_dense"].item() == found["margin_pruned"].item() == pytest.approx(1 / 0.7)


def test_margins_are_those_of_the_dense_winner():
    before, after = margins(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[-2.5, 0.0, 0.5]]))
    assert (before.item(), after.item()) == (1.0, -2.0)


def test_a_rank_is_the_number_of_larger_logits():
    z = torch.tensor([[0.5, 2.0, 2.0, -1.0], [1.0, 0.0, 3.0, 2.0]])
    assert ranks(z, torch.tensor([[1, 2, 0, 3], [0, 1, 2, 3]])).tolist() == [[0, 0, 2, 3], [2, 3, 0, 1]]


@settings(deadline=None, max_examples=100)
@given(st.data(), st.integers(60, 500), st.integers(2, 10), st.integers(0, 2**31))
def test_matched_tokens_are_others_of_near_rank(data, vocabulary, size, seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(vocabulary, generator=generator)
    taken = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=size, max_size=size, unique=True))
    sets = rank_matched(order, torch.tensor(taken), 5, generator)
    assert sets.shape == (5, size)
    rank_of = {int(token): rank for rank, token in enumerate(order)}
    given_tokens = {int(order[rank]) for rank in taken}
    for row in sets.tolist():
        assert len(set(row)) == size
        assert not given_tokens & set(row)
        for token, rank in zip(row, taken, strict=True):
            assert rank // 2 <= rank_of[token] <= 2 * rank + 2 * size


@settings(deadline=None, max_examples=30)
@given(st.data(), st.integers(2, 10), st.integers(0, 10))
def test_a_small_vocabulary_ends_and_has_enough_tokens_or_is_refused(data, size, spare):
    vocabulary, generator = 2 * size + spare, torch.Generator().manual_seed(0)
    taken = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=size, max_size=size, unique=True))
    for row in rank_matched(torch.arange(vocabulary), torch.tensor(taken), 3, generator).tolist():
        assert len(set(row)) == size and not set(row) & set(taken)
    with pytest.raises(ValueError, match="too small for .* random tokens"):
        rank_matched(torch.arange(2 * size - 1), torch.tensor(taken) % (2 * size - 1), 3, generator)


def test_draws_differ_and_are_repeated_by_their_seed():
    order, taken = torch.arange(400), torch.tensor([50, 100, 150])
    one, again, other = (rank_matched(order, taken, 8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len({tuple(row) for row in one.tolist()}) == 8


def test_every_rank_of_the_window_can_be_drawn():
    sets = rank_matched(torch.arange(400), torch.tensor([4]), 2000, torch.Generator().manual_seed(0))
    assert set(sets.flatten().tolist()) == set(range(2, 11)) - {4}
