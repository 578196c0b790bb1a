"""How far the dtype's rounding moves log-likelihoods, and which decisions lie within it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pipeline.evaluate.answer import Answer
from pipeline.evaluate.prefix_tree import Item
from pipeline.evaluate.straight_pass import StraightPass

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Requests that are asked once more, alone.
_ASKED = 3


@torch.inference_mode()
def rounding(
    model: PreTrainedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], answers: Sequence[Answer]
) -> float:
    """Return the largest difference, in nats, that asking a few requests alone makes to their log-likelihoods.

    The requests, (context, continuation) of token ids with their answers among all others, are spread evenly.
    """
    places = [place for place, (_, continuation) in enumerate(pairs) if continuation]
    alone, found = StraightPass(model, 1), [0.0]
    for place in places[:: max(1, -(-len(places) // _ASKED))]:
        context, continuation = pairs[place]
        item = Item((*context, *continuation[:-1]), [(place, continuation)])
        found += [abs(value - answers[place][0]) for _, (value, _) in alone.whole([item])]
    return max(found)


def is_close(values: Sequence[float], lengths: Sequence[int], rounding: float) -> bool:
    """Return whether another option may be the best one if every log-likelihood is off by as much as ``rounding``.

    Args:
        values: log-likelihoods of an item's options, in nats.
        lengths: what each is divided by before options are compared; 1 where they are compared as they are.
    """
    scores = [value / length for value, length in zip(values, lengths, strict=True)]
    best = scores.index(max(scores))
    rivals = (at for at in range(len(scores)) if at != best)
    return any(scores[best] - scores[at] <= rounding * (1 / lengths[best] + 1 / lengths[at]) for at in rivals)
