"""Exact search: against sorting all scores, with ties, in any order of documents, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import chosen
from places import ROOT

from pipeline.evaluate.retrieval import search as module
from pipeline.evaluate.retrieval.search import Hits, Search


def found(queries: torch.Tensor, documents: torch.Tensor, k: int, groups: list[list[int]]) -> Hits:
    search = Search(queries, k)
    for group in groups:
        search.add(group, documents[group])
    return search.hits()


def brute_force(queries: torch.Tensor, documents: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All scores, sorted; numpy's stable sort keeps the first of equal ones first."""
    scores = queries.numpy() @ documents.numpy().T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


@chosen()
@given(st.data())
def test_equals_sorting_all_scores(data):
    size, count, k = (data.draw(st.integers(1, most)) for most in (60, 5, 12))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**20)))
    # Small whole numbers: products are exact, negative ones and ties are common.
    queries, documents = (torch.randint(-2, 3, (n, 3), generator=generator).float() for n in (count, size))
    order = torch.randperm(size, generator=generator).tolist()
    cuts = sorted(data.draw(st.sets(st.integers(1, size), max_size=4)) | {0, size})
    groups = [order[a:b] for a, b in pairwise(cuts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_DOCUMENTS", data.draw(st.integers(1, 20)))
        patch.setattr(module, "_QUERIES", data.draw(st.integers(1, 3)))
        hits = found(queries, documents, k, groups)
    scores, places = brute_force(queries, documents, k)
    assert hits.scores.numpy().tolist() == scores.tolist()
    assert hits.places.tolist() == places.tolist()


def test_scores_are_what_was_computed():
    generator = torch.Generator().manual_seed(0)
    queries, documents = (torch.randn(n, 16, generator=generator) for n in (7, 10_000))
    hits = found(queries, documents, 50, [list(range(at, at + 100)) for at in range(0, 10_000, 100)])
    scores, places = brute_force(queries, documents, 50)
    np.testing.assert_allclose(hits.scores.numpy(), scores, rtol=0, atol=1e-5)
    assert (hits.places.numpy() == places).mean() > 0.99  # but for scores that differ by rounding alone


def test_zero_has_one_sign():
    hits = found(torch.tensor([[1.0, 0.0]]), torch.tensor([[-0.0, 1.0], [0.0, -1.0]]), 2, [[1, 0]])
    assert hits.places.tolist() == [[0, 1]]


def test_nothing_added_is_nothing_found():
    hits = Search(torch.ones(2, 3), 5).hits()
    assert hits.scores.shape == hits.places.shape == (2, 0)


PROGRAM = """
import resource, sys, torch
from pipeline.evaluate.retrieval.search import Search
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
search = Search(torch.randn(8, 64, generator=generator), 10)
documents, group = int(sys.argv[1]), 2000
some = torch.randn(group, 64, generator=generator)
used = None
for start in range(0, documents, group):
    search.add(range(start, start + group), some + start * 1e-7)
    if start == 50 * group:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
search.hits()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used)
"""


@pytest.mark.rotated("a million documents")
def test_memory_does_not_grow_with_a_million_documents():
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "1000000"], env=environment, capture_output=True, text=True, check=True
    )
    # Their embeddings would take 244 MiB; a tenth of them have been added when counting starts.
    assert int(result.stdout) < 20 * 1024
