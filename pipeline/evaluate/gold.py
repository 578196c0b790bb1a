"""Where the gold answer stands: among the options, or in the vocabulary where a generated answer leaves it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.evaluate.answer import Standing
from pipeline.evaluate.likelihoods import standings

if TYPE_CHECKING:
    from pipeline.evaluate.language_model import InMemoryLM
    from pipeline.evaluate.written import Written


def option_standing(log_likelihoods: Sequence[float], gold: Collection[int]) -> Standing:
    """Return the standing of the gold options among all options, by their log-likelihoods in nats.

    The rank is that of the best gold option, 1 for the likeliest of all; equally likely options share the better rank.
    The probability is the softmax over the options, summed over the gold ones.
    """
    values = np.asarray(log_likelihoods, dtype=float)
    mine = values[list(gold)]
    weights = np.exp(values - values.max())
    return Standing(int((values > mine.max()).sum()) + 1, float(weights[list(gold)].sum() / weights.sum()))


class Fork(NamedTuple):
    """Where a text leaves its gold answers: the tokens that both have, and the next token of each such answer."""

    common: tuple[int, ...]
    gold: tuple[int, ...]


def fork(written: Sequence[int], golds: Iterable[Sequence[int]]) -> Fork | None:
    """Return where generated tokens first differ from a gold answer's; None without a difference.

    There is none in a text that begins with a gold answer or ends within it. Of several gold answers, those count that
    agree with the text for longest.
    """
    shared: dict[int, list[int]] = {}
    for gold in golds:
        length = next((at for at, pair in enumerate(zip(gold, written, strict=False)) if pair[0] != pair[1]), None)
        if length is None:
            # A text that stops within the answer differs from it by nothing that was written.
            return None
        shared.setdefault(length, []).append(gold[length])
    if not shared:
        return None
    longest = max(shared)
    return Fork(tuple(written[:longest]), tuple(dict.fromkeys(shared[longest])))


def gold_standings(
    model: InMemoryLM, asked: Sequence[tuple[Written, Sequence[Sequence[int]]]]
) -> list[Standing | None]:
    """Return the standing of the first gold token that differs from what the model wrote, in its whole vocabulary.

    One pass over prompt and common tokens, for texts that differ from all their gold answers (token ids); None for
    others. Where several gold answers go on differently, the rank is the best one and the probability their sum.
    """
    forks = [fork(written.tokens, golds) for written, golds in asked]
    pairs: list[tuple[Sequence[int], int]] = []
    owners: list[int] = []
    for place, ((written, _), found) in enumerate(zip(asked, forks, strict=True)):
        if found is not None:
            pairs += [((*written.prompt, *found.common), token) for token in found.gold]
            owners += [place] * len(found.gold)
    results: list[Standing | None] = [None] * len(asked)
    for place, standing in zip(owners, standings(model.model, pairs, model.rows), strict=True):
        best = results[place]
        results[place] = standing if best is None else Standing(min(best.rank, standing.rank), best.p + standing.p)
    return results


def gold_texts(target: Any) -> list[str]:
    """Return the gold answers of a generated item, as lm-eval's ``doc_to_target`` gives them: one text or several."""
    given = target if isinstance(target, list | tuple) else [target]
    return [str(text) for text in given if not isinstance(text, list | dict) and str(text).strip()]
