"""Which units to take away so that a cost of the whole set stays low: one after the other, or several paths at once.

Nothing here knows what a unit or a cost is; costs are asked for, and a question may be expensive.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Unit = TypeVar("Unit", bound=Hashable)
# The cost of a set with each of some further units in it.
Costs = Callable[[Sequence[Unit], Sequence[Unit]], Mapping[Unit, float]]
# Units that are asked for at once: asking has a price of its own.
_AT_ONCE = 4


@dataclass(frozen=True)
class Step(Generic[Unit]):
    """A unit that was taken, the cost of the set with it, and how many further units were asked for to choose it."""

    unit: Unit
    cost: float
    asked: int


def greedy(units: Sequence[Unit], count: int, costs: Costs[Unit], lazy: bool = True) -> list[Step[Unit]]:
    """Take ``count`` units, each time the one that adds least.

    ``lazy`` asks first for those that added least when they were last asked for, and stops once no other can have been
    cheaper then: exact as long as what a unit adds never shrinks while others go.
    """
    added = dict.fromkeys(units, float("-inf"))
    taken: list[Unit] = []
    path: list[Step[Unit]] = []
    cost = 0.0
    for _ in range(count):
        left = sorted((unit for unit in units if unit not in taken), key=lambda unit: added[unit])
        now: dict[Unit, float] = {}
        while len(now) < len(left):
            waiting = [unit for unit in left if unit not in now]
            if lazy and now and min(now.values()) - cost <= added[waiting[0]]:
                break
            unknown = [unit for unit in waiting if added[unit] == float("-inf")]
            now |= costs(taken, (unknown or waiting[:_AT_ONCE]) if lazy else waiting)
        best = min(now, key=lambda unit: now[unit])
        added |= {unit: value - cost for unit, value in now.items()}
        cost = now[best]
        taken.append(best)
        path.append(Step(best, cost, len(now)))
    return path


def beam(units: Sequence[Unit], count: int, costs: Costs[Unit], width: int) -> list[Step[Unit]]:
    """The cheapest path of ``count`` units among those that keep the ``width`` cheapest sets at every step."""
    paths: list[list[Step[Unit]]] = [[]]
    for _ in range(count):
        found: dict[frozenset[Unit], list[Step[Unit]]] = {}
        for path in paths:
            taken = [step.unit for step in path]
            now = costs(taken, [unit for unit in units if unit not in taken])
            for unit, cost in now.items():
                longer = [*path, Step(unit, cost, len(now))]
                members = frozenset(step.unit for step in longer)
                if members not in found or cost < found[members][-1].cost:
                    found[members] = longer
        paths = sorted(found.values(), key=lambda path: path[-1].cost)[:width]
    return paths[0]
