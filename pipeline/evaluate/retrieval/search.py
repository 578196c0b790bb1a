"""Exact nearest-document search over a stream of embeddings, in memory that does not grow with the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

# Documents compared at a time, and queries compared with them at a time: 4096 × 1024 keys take 32 MiB.
_DOCUMENTS, _QUERIES = 4096, 1024
_LOW = 2**32 - 1
_NOTHING = -(2**63)


@dataclass(frozen=True)
class Hits:
    """The best documents of every query, best first: scores (Q, k) float32 and places (Q, k) int64, both on the CPU."""

    scores: torch.Tensor
    places: torch.Tensor


class Search:
    """Keeps the ``k`` documents with the largest dot product for each of ``queries`` (Q, D).

    Equal scores are ordered by place, the first document first, regardless of the order in which documents are added.
    Memory is Q × k and one group of documents, on the device of the queries.
    """

    def __init__(self, queries: torch.Tensor, k: int) -> None:
        self.queries = queries
        self.k = k
        self.seen = 0
        self._keys = torch.full((len(queries), k), _NOTHING, device=queries.device)
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, places: Sequence[int], embeddings: torch.Tensor) -> None:
        """Add documents at ``places`` (below 2³²) with ``embeddings`` (B, D)."""
        device = self.queries.device
        self.seen += len(places)
        self._waiting.append((torch.tensor(places, device=device), embeddings.to(device)))
        if sum(len(waiting) for waiting, _ in self._waiting) >= _DOCUMENTS:
            self._merge()

    def hits(self) -> Hits:
        """Return the best documents so far, fewer than ``k`` if there are fewer."""
        self._merge()
        keys = self._keys[:, : min(self.k, self.seen)]
        return Hits(_score(keys).cpu(), (_LOW - (keys & _LOW)).cpu())

    def _merge(self) -> None:
        if not self._waiting:
            return
        places = torch.cat([places for places, _ in self._waiting])
        embeddings = torch.cat([embeddings for _, embeddings in self._waiting])
        self._waiting.clear()
        for documents in range(0, len(places), _DOCUMENTS):
            part = slice(documents, documents + _DOCUMENTS)
            for start in range(0, len(self.queries), _QUERIES):
                rows = slice(start, start + _QUERIES)
                new = _key(self.queries[rows] @ embeddings[part].T, places[part])
                self._keys[rows] = torch.cat([self._keys[rows], new], 1).topk(self.k, dim=1).values


def _key(scores: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Combine score and place into an int64 that orders by score, then by place: no ties, and any top-k is the same.

    The upper half holds the bits of the float32 score, flipped for negative numbers to make integers sort as the
    numbers do; the lower half holds the place, counted down.
    """
    bits = (scores.float() + 0.0).view(torch.int32)  # the sum turns -0 into 0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) | (_LOW - places)


def _score(keys: torch.Tensor) -> torch.Tensor:
    ordered = (keys >> 32).to(torch.int32)
    return torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).view(torch.float32)
