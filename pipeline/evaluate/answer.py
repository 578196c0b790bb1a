"""What a model says of a continuation: its log-likelihood, and whether each of its tokens is the likeliest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from pipeline.model.softmax import log_normaliser

# Log-likelihood of a continuation in nats, and whether each of its tokens is the likeliest.
Answer = tuple[float, bool]


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


def answer_of(logits: torch.Tensor, continuation: Sequence[int]) -> Answer:
    """Return the answer to a continuation of T tokens by the logits (T, V) that predict them."""
    return next(answers_of(logits, [continuation]))
