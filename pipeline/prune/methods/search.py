"""Search for units to remove at a low cost of the whole set: one after the other, or along several paths at once.

The search does not know what a unit or a cost is; it asks for costs, and a question may be expensive. A unit may
consist of several parts, as a block does of sublayers: units that share a part exclude each other, and the budget is in
parts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Unit = TypeVar("Unit", bound=Hashable)
# The cost of a set together with each of some further units.
Costs = Callable[[Sequence[Unit], Sequence[Unit]], Mapping[Unit, float]]
Parts = Callable[[Unit], frozenset[Hashable]]
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
    part: Callable[[Unit, int], float],
    added: Callable[[Unit, Sequence[float]], float],
    progress: Callable[[Iterable[int], int], Iterable[int]],
) -> dict[Unit, dict[int, float]]:
    """Return the parts of costs that it takes to know the candidate that adds least; only its own are all there.

    A cost is a sum of parts that are never negative, ``part(unit, piece)`` for every piece; ``added`` says what parts
    known so far add at least. The candidate with the lowest bound gets its next part, until that is one without
    missing parts. Those given up add more than it does. Pieces are asked for in the order given.
    """
    known: dict[Unit, dict[int, float]] = {unit: {} for unit in candidates}
    bounds = {unit: added(unit, []) for unit in candidates}
    most = len(candidates) * len(pieces)
    for _ in progress(range(most), most):
        # Of equal bounds an incomplete one comes first, so that every candidate given up adds more.
        unit = min(candidates, key=lambda unit: (bounds[unit], len(known[unit]) == len(pieces)))
        if len(known[unit]) == len(pieces):
            break
        piece = pieces[len(known[unit])]
        known[unit][piece] = part(unit, piece)
        bounds[unit] = added(unit, list(known[unit].values()))
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
