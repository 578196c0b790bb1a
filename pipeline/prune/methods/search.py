"""Search for units to remove at a low cost of the whole set: one after the other, or along several paths at once.

The search does not know what a unit or a cost is; it asks for costs, and a question may be expensive. A unit may
consist of several parts, as a block does of sublayers: units that share a part exclude each other, and the budget is in
parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Unit = TypeVar("Unit", bound=Hashable)
# The cost of a set together with each of some further units.
Costs = Callable[[Sequence[Unit], Sequence[Unit]], Mapping[Unit, float]]
Parts = Callable[[Unit], frozenset[Hashable]]
# What one piece adds to the costs of some units.
Part = Callable[[Sequence[Unit], int], Sequence[float]]
# Units that are asked for at once, since each question has an overhead.
_AT_ONCE = 4


@dataclass(frozen=True)
class Step(Generic[Unit]):
    """A unit that was taken, the cost of the set with it, and how many units were asked for to choose it."""

    unit: Unit
    cost: float
    questions: int


def single(unit: Unit) -> frozenset[Hashable]:
    """Return the only part of a unit without parts: itself."""
    return frozenset([unit])


def batched(units: Sequence[Unit], size: int) -> Iterator[Sequence[Unit]]:
    """Yield the units in order, at most so many at a time."""
    return (units[start : start + size] for start in range(0, len(units), size))


def greedy(
    units: Sequence[Unit], count: int, costs: Costs[Unit], lazy: bool = False, parts: Parts[Unit] = single
) -> list[Step[Unit]]:
    """Take units of ``count`` parts in all, each time the one that adds least per part.

    ``lazy`` asks first for the units that added least when last asked for, and stops once no other added less even
    then: exact as long as what a unit adds never shrinks while others are removed.
    """
    added = dict.fromkeys(units, float("-inf"))
    path: list[Step[Unit]] = []
    while left := sorted(_open(units, path, count, parts), key=lambda unit: added[unit]):
        taken, cost = [step.unit for step in path], path[-1].cost if path else 0.0
        now: dict[Unit, float] = {}
        adds: dict[Unit, float] = {}
        while len(now) < len(left):
            waiting = [unit for unit in left if unit not in now]
            if lazy and adds and min(adds.values()) <= added[waiting[0]]:
                break
            unknown = [unit for unit in waiting if added[unit] == float("-inf")]
            now |= costs(taken, (unknown or waiting[:_AT_ONCE]) if lazy else waiting)
            adds = {unit: (value - cost) / len(parts(unit)) for unit, value in now.items()}
        added |= adds
        # Differences that rounding made equal are ordered by the costs themselves; of equal costs the first unit wins.
        best = min(adds, key=lambda unit: (adds[unit], now[unit], units.index(unit)))
        path.append(Step(best, now[best], len(now)))
    return path


def best_first(
    candidates: Sequence[Unit],
    pieces: Sequence[int],
    part: Part[Unit],
    added: Callable[[Unit, Sequence[float]], float],
    progress: Callable[[Iterable[int], int], Iterable[int]],
    together: int = 1,
) -> dict[Unit, dict[int, float]]:
    """Return the parts of costs that it takes to know the candidate that adds least.

    A cost is a sum of parts that are never negative, one for every piece; ``added`` says what parts known so far add at
    least. Pieces are asked for in the order given, each for up to ``together`` candidates at once. All get the first
    piece. Then the most promising ones get the others, and so on with the next, but only as long as they may add no
    more than the best one known: those without all parts add more than the one that adds least.
    """
    known: dict[Unit, dict[int, float]] = {unit: {} for unit in candidates}
    bounds = {unit: added(unit, []) for unit in candidates}
    most = len(candidates) * len(pieces)
    ticks = iter(progress(range(most), most))

    def ask(units: Sequence[Unit], piece: int) -> None:
        for unit, value in zip(units, part(units, piece) if units else [], strict=True):
            known[unit][piece] = value
            bounds[unit] = added(unit, list(known[unit].values()))
            next(ticks, None)

    for some in batched(candidates, together):
        ask(some, pieces[0])
    waiting, best = sorted(candidates, key=lambda unit: bounds[unit]), math.inf
    for some in batched(waiting, together):
        for piece in pieces[1:]:
            ask([unit for unit in some if bounds[unit] <= best], piece)
        best = min([best, *(bounds[unit] for unit in some if len(known[unit]) == len(pieces))])
    return known


def beam(
    units: Sequence[Unit], count: int, costs: Costs[Unit], width: int, parts: Parts[Unit] = single
) -> list[Step[Unit]]:
    """Return the cheapest path of ``count`` parts among those that keep the ``width`` cheapest sets of every size."""
    sizes: list[list[list[Step[Unit]]]] = [[[]], *([] for _ in range(count))]
    for size in range(count):
        for path in sizes[size]:
            taken = [step.unit for step in path]
            candidates = _open(units, path, count, parts)
            now = costs(taken, candidates) if candidates else {}
            for unit, cost in now.items():
                sizes[size + len(parts(unit))].append([*path, Step(unit, cost, len(now))])
        if size + 1 <= count:
            sizes[size + 1] = _cheapest(sizes[size + 1], width, parts)
    return next((paths[0] for paths in reversed(sizes) if paths), [])


def _open(units: Sequence[Unit], path: Sequence[Step[Unit]], count: int, parts: Parts[Unit]) -> list[Unit]:
    """Return the units that share no part with those taken and have no more parts than are left to take."""
    gone = frozenset[Hashable]().union(*(parts(step.unit) for step in path))
    return [unit for unit in units if not parts(unit) & gone and len(parts(unit)) <= count - len(gone)]


def _cheapest(paths: Sequence[list[Step[Unit]]], width: int, parts: Parts[Unit]) -> list[list[Step[Unit]]]:
    """Return the ``width`` cheapest paths, only the cheapest of several to the same parts."""
    best: dict[frozenset[Hashable], list[Step[Unit]]] = {}
    for path in sorted(paths, key=lambda path: path[-1].cost):
        best.setdefault(frozenset[Hashable]().union(*(parts(step.unit) for step in path)), path)
    return list(best.values())[:width]
