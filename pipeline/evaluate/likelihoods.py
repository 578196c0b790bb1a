"""Log-likelihoods of continuations and standings of tokens, computed together with the result of each alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from pipeline.common.terminal import advancing
from pipeline.evaluate.answer import Answer, Reader, Standing, answers_of, standings_of
from pipeline.evaluate.prefix_tree import Item, Tokens
from pipeline.evaluate.row_width import widest_row
from pipeline.evaluate.straight_pass import StraightPass
from pipeline.evaluate.tree_pass import TreePass

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pairs = Mapping[int, tuple[Tokens, Sequence[int]]]


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], batch_size: int
) -> list[Answer]:
    """Compute the log-likelihood of each (context, continuation) of token ids; an empty continuation is certain.

    Contexts have at least one token and fit into the model with their continuations. Every distinct beginning goes
    through the model once, where the model allows it (`widest_row`). No pass has more tokens than ``batch_size`` times
    the longest context with its continuation. Sums are in float64. Raises ValueError for logits that are not finite.
    """
    answers: list[Answer] = [(0.0, True)] * len(pairs)
    asked = {index: (tuple(context), rest) for index, (context, rest) in enumerate(pairs) if rest}
    with advancing("multiple choice", len(asked)) as advance:
        for found in _read(model, asked, batch_size, answers_of):
            for index, answer in found:
                answers[index] = answer
            advance(len(found))
    return answers


@torch.inference_mode()
def standings(model: PreTrainedModel, pairs: Sequence[tuple[Sequence[int], int]], batch_size: int) -> list[Standing]:
    """Return the standing of a token after each context of token ids, in the whole vocabulary.

    Contexts have at least one token. They go through the model as those of `log_likelihoods`.
    """
    found: dict[int, Standing] = {}
    asked = {index: (tuple(context), [token]) for index, (context, token) in enumerate(pairs)}
    with advancing("gold answers", len(asked)) as advance:
        for read in _read(model, asked, batch_size, standings_of):
            found |= dict(read)
            advance(len(read))
    return [found[index] for index in range(len(pairs))]


def _read(model: PreTrainedModel, pairs: Pairs, batch_size: int, read: Reader) -> Iterator[list[tuple[int, Any]]]:
    widest = widest_row(model) if pairs else 0
    items: dict[Tokens, Item] = {}
    for index, (context, rest) in pairs.items():
        # The last token is predicted but never run.
        run = (*context, *rest[:-1])
        if len(run) <= widest:
            items.setdefault(run, Item(run)).asked.append((index, rest))
    if items:
        tree = TreePass(model, batch_size, read)
        yield from tree.answers(*tree.plan(list(items.values()), widest))
    done = {index for item in items.values() for index, _ in item.asked}
    straight = StraightPass(model, batch_size, read)
    yield from straight.answers({at: pair for at, pair in pairs.items() if at not in done})
