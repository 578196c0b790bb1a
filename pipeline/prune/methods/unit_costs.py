"""Costs of a model without some units, measured pass by pass over a trajectory, so that a candidate can be given up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from pipeline.model.decoder import Decoder
from pipeline.model.prefix import Change, SharedPrefix, Variant, shared_prefix
from pipeline.model.trajectory import Forward, Trajectory, forwards

if TYPE_CHECKING:
    import torch

# A candidate is given up between passes: about so many of the text, none smaller than a processor needs to be busy.
_PASSES, _LEAST = 16, 96
# Candidates run side by side as long as they have no more tokens than this: products of more rows gain little, and a
# candidate that runs beside better ones is given up later.
_TOGETHER = 512


@dataclass(frozen=True)
class Cost:
    """The cost of a model as a sum over the predictions of a trajectory; 0 for the dense model.

    ``added(start, states)`` is what the predictions from number ``start`` on add with the final states (k, n, D) of k
    models, a number for each. It is never negative, so that a sum over some predictions is a lower bound. ``dense`` is
    the sum over all of them for the dense model, where that is not 0.
    """

    added: Callable[[int, torch.Tensor], list[float]]
    dense: float = 0.0


class UnitCosts:
    """Costs of the variants of one model on the passes over a trajectory."""

    def __init__(self, cost: Cost, prefix: SharedPrefix, passes: Sequence[Forward]) -> None:
        self._cost, self._prefix = cost, prefix
        predictions = [sum(map(len, each.tokens)) for each in passes]
        self._starts = [0, *accumulate(predictions)][:-1]
        self._known: dict[Variant, dict[int, float]] = {}
        # Tokens sent through a whole model, and predictions, of every pass.
        self.tokens = [len(each.prompts) * each.width for each in passes]
        self.predictions = predictions

    @property
    def together(self) -> int:
        """How many variants are worth running side by side."""
        return max(1, _TOGETHER // max(self.tokens))

    def part(self, changes: Sequence[Change], index: int) -> list[float]:
        """Return what pass ``index`` adds to the cost of variants of the model as it is now, one block changed each."""
        known = [self._known.setdefault(self._variant(open_change), {}) for _, open_change in changes]
        if missing := [at for at, parts in enumerate(known) if index not in parts]:
            states = self._prefix.finals(index, [changes[at] for at in missing])
            for at, value in zip(missing, self._cost.added(self._starts[index], states), strict=True):
                known[at][index] = value
        return [parts[index] for parts in known]

    def parts(self, layer: int) -> list[float]:
        """Return what every pass adds to the cost of the model as it is now; its first change is in ``layer``."""
        return [self.part([(layer, nullcontext)], index)[0] for index in range(len(self.tokens))]

    def total(self, parts: Iterable[float]) -> float:
        """Return the cost that parts add up to: the whole cost if they are all, a lower bound if some are missing."""
        return math.fsum(parts) - self._cost.dense

    def forget_others(self) -> None:
        """Forget all parts but those of the model as it is now."""
        now = self._prefix.variant()
        self._known = {now: self._known.get(now, {})}

    def _variant(self, open_change: Callable[[], AbstractContextManager[None]]) -> Variant:
        with open_change():
            return self._prefix.variant()


@contextmanager
def unit_costs(decoder: Decoder, trajectory: Trajectory, cost: Cost) -> Iterator[UnitCosts]:
    """Open `UnitCosts` of a dense model; states before its blocks are kept until it is closed."""
    tokens = sum(map(len, (*trajectory.prompts, *trajectory.tokens)))
    passes = list(forwards(trajectory, tight=True, most=max(_LEAST, tokens / _PASSES)))
    with shared_prefix(decoder, passes) as prefix:
        yield UnitCosts(cost, prefix, passes)
