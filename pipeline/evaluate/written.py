"""What a model wrote after a prompt: its tokens up to the end, whether the limit cut them off, how they repeat."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

# Tokens of a run that counts as repeated.
RUN = 4


@dataclass(frozen=True)
class Written:
    """Token ids of a prompt as the model read it, and of what it wrote, with the tokens that end it.

    ``truncated`` says that the text reached the limit of tokens before an end.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    truncated: bool


def ended(
    tokens: Sequence[int], ends: Collection[int], stops: Sequence[str], decode: Callable[[Sequence[int]], str]
) -> tuple[Sequence[int], bool]:
    """Return generated token ids up to the first that ends the text, and whether there is one.

    A text ends with one of the tokens ``ends``, or with the token that completes one of the texts ``stops``.
    """
    end = next((place + 1 for place, token in enumerate(tokens) if token in ends), 0)
    kept = tokens[:end] if end else tokens

    def stopped(count: int) -> bool:
        text = decode(kept[:count])
        return any(stop in text for stop in stops if stop)

    if not stopped(len(kept)):
        return kept, end > 0
    low, high = 0, len(kept)
    # More tokens never take a stop away.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if stopped(middle) else (middle, high)
    return kept[:high], True


def repetition(tokens: Sequence[Hashable], run: int = RUN) -> float:
    """Compute the share of runs of ``run`` tokens that occurred before: ``1 - distinct runs / runs``.

    It is seq-rep-n of Welleck et al. (2020, "Neural Text Generation with Unlikelihood Training", section 6). NaN for
    fewer than ``run`` tokens, which have no run.
    """
    runs = [tuple(tokens[start : start + run]) for start in range(len(tokens) - run + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else math.nan
