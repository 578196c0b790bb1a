"""What a model says of a continuation: its log-likelihood, or where its last token stands among all tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from pipeline.model.softmax import log_normaliser

# Log-likelihood of a continuation in nats, and whether each of its tokens is the likeliest.
Answer = tuple[float, bool]
# Reads continuations by the logits (N, V) that predict their N tokens, one after the other: yields one value for each.
Reader = Callable[[torch.Tensor, Sequence[Sequence[int]]], Iterator[Any]]


class Standing(NamedTuple):
    """Place of a token in the distribution that predicts it: its rank, 1 for the likeliest, and its probability."""

    rank: int
    p: float


def answers_of(logits: torch.Tensor, continuations: Sequence[Sequence[int]]) -> Iterator[Answer]:
    """Yield the answer to each continuation by the logits (N, V) that predict their N tokens, one after the other."""
    lengths = [len(tokens) for tokens in continuations]
    target = torch.tensor([token for tokens in continuations for token in tokens], device=logits.device)
    # In float64, since in float32 the many small terms of a large vocabulary get lost.
    own = logits.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    logp = own.double() - log_normaliser(logits)
    likeliest = own == logits.amax(-1)
    # Of several largest ones the first counts. Looking for it takes long, so it is looked for only where it may be.
    likeliest[likeliest.clone()] = logits[likeliest].argmax(-1) == target[likeliest]
    for values, hits in zip(logp.split(lengths), likeliest.split(lengths), strict=True):
        yield float(values.sum()), bool(hits.all())


def standings_of(logits: torch.Tensor, continuations: Sequence[Sequence[int]]) -> Iterator[Standing]:
    """Yield the standing of each continuation's last token by the logits (N, V) that predict their N tokens.

    The rank is one more than the number of tokens with a larger logit: equally likely tokens share the better rank.
    """
    last = torch.tensor([len(tokens) for tokens in continuations], device=logits.device).cumsum(0) - 1
    target = torch.tensor([tokens[-1] for tokens in continuations], device=logits.device)
    read = logits[last]
    own = read.gather(-1, target.unsqueeze(-1))
    ranks = (read > own).sum(-1) + 1
    p = (own.squeeze(-1).double() - log_normaliser(read)).exp()
    yield from map(Standing, ranks.tolist(), p.tolist())
