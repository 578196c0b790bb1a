"""Costs of a model without some units, measured pass by pass over a trajectory, so that a candidate can be given up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from pipeline.model.decoder import Decoder
from pipeline.model.prefix import SharedPrefix, Variant, shared_prefix
from pipeline.model.trajectory import Forward, Trajectory, forwards

if TYPE_CHECKING:
    import torch

# A candidate is given up between passes: about so many of the text, none smaller than a processor needs to be busy.
_PASSES, _LEAST = 16, 96


@dataclass(frozen=True)
class Cost:
    """The cost of a model as a sum over the predictions of a trajectory; 0 for the dense model.

    ``added(start, states)`` is what the predictions from number ``start`` on add with these final states (n, D). It is
    never negative, so that a sum over some predictions is a lower bound. ``dense`` is the sum over all of them for the
    dense model, where that is not 0.
    """

    added: Callable[[int, torch.Tensor], float]
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

    def part(self, layer: int, index: int) -> float:
        """Return what pass ``index`` adds to the cost of the model as it is now; its first change is in ``layer``."""
        known = self._known.setdefault(self._prefix.variant(), {})
        if index not in known:
            known[index] = self._cost.added(self._starts[index], self._prefix.final(layer, index))
        return known[index]

    def parts(self, layer: int) -> list[float]:
        """Return what every pass adds to the cost of the model as it is now; its first change is in ``layer``."""
        return [self.part(layer, index) for index in range(len(self.tokens))]

    def total(self, parts: Iterable[float]) -> float:
        """Return the cost that parts add up to: the whole cost if they are all, a lower bound if some are missing."""
        return math.fsum(parts) - self._cost.dense

    def forget_others(self) -> None:
        """Forget all parts but those of the model as it is now."""
        now = self._prefix.variant()
        self._known = {now: self._known.get(now, {})}


@contextmanager
def unit_costs(decoder: Decoder, trajectory: Trajectory, cost: Cost) -> Iterator[UnitCosts]:
    """Open `UnitCosts` of a dense model; states before its blocks are kept until it is closed."""
    tokens = sum(map(len, (*trajectory.prompts, *trajectory.tokens)))
    passes = list(forwards(trajectory, tight=True, most=max(_LEAST, tokens / _PASSES)))
    with shared_prefix(decoder, passes) as prefix:
        yield UnitCosts(cost, prefix, passes)
