"""Choosing units by the cost of a set: what greedy and beam find, and how much they ask for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prune.methods.search import beam, best_first, greedy

UNITS = list(range(8))


class Asked:
    """A cost of sets of numbers that counts how many sets were asked for."""

    def __init__(self, cost: Callable[[frozenset[int]], float]) -> None:
        self.cost, self.count = cost, 0

    def __call__(self, taken: Sequence[int], candidates: Sequence[int]) -> dict[int, float]:
        self.count += len(candidates)
        return {unit: self.cost(frozenset([*taken, unit])) for unit in candidates}


def growing(weights: Sequence[float], together: Sequence[float]) -> Callable[[frozenset[int]], float]:
    """A cost to which a unit adds the more, the more others are gone."""
    pairs = dict(zip(combinations(UNITS, 2), together, strict=True))
    return lambda chosen: sum(weights[u] for u in chosen) + sum(pairs[p] for p in combinations(sorted(chosen), 2))


number = st.floats(0, 1, width=32)
costs = st.builds(growing, st.lists(number, min_size=8, max_size=8), st.lists(number, min_size=28, max_size=28))


@given(cost=costs, count=st.integers(0, 8))
def test_lazy_greedy_is_greedy_where_costs_only_grow(cost, count):
    lazy, exhaustive = Asked(cost), Asked(cost)
    paths = greedy(UNITS, count, lazy, lazy=True), greedy(UNITS, count, exhaustive)
    assert [step.cost for step in paths[0]] == pytest.approx([step.cost for step in paths[1]])
    assert lazy.count <= exhaustive.count
    assert sum(step.questions for step in paths[0]) == lazy.count


def test_lazy_greedy_asks_again_only_for_what_may_be_best():
    cost = growing([1, 2, 3, 4, 100, 101, 102, 103], [0.001] * 28)
    lazy = Asked(cost)
    assert [step.unit for step in greedy(UNITS, 4, lazy, lazy=True)] == [0, 1, 2, 3]
    assert lazy.count == 8 + 3 * 4
    assert len(greedy(UNITS, 8, Asked(cost), lazy=True)) == 8


@given(cost=costs, count=st.integers(1, 4))
def test_a_beam_of_one_is_greedy_and_a_wide_one_finds_the_best_set(cost, count):
    assert [s.cost for s in beam(UNITS, count, Asked(cost), 1)] == pytest.approx(
        [s.cost for s in greedy(UNITS, count, Asked(cost))]
    )
    best = min(cost(frozenset(chosen)) for chosen in combinations(UNITS, count))
    assert beam(UNITS, count, Asked(cost), 70)[-1].cost == pytest.approx(best)


def test_a_beam_escapes_a_choice_that_greedy_regrets():
    table = {frozenset({0}): 1.0, frozenset({1}): 2.0, frozenset({2}): 2.5, frozenset({0, 1}): 9.0}
    table |= {frozenset({0, 2}): 9.0, frozenset({1, 2}): 3.0}
    cost = table.__getitem__
    assert greedy([0, 1, 2], 2, Asked(cost))[-1].cost == 9.0
    assert beam([0, 1, 2], 2, Asked(cost), 2)[-1].cost == 3.0


def halves(unit: object) -> frozenset:
    """Pairs consist of two numbers, numbers of themselves."""
    return frozenset(unit) if isinstance(unit, tuple) else frozenset([unit])


@given(cost=costs, count=st.integers(0, 8), width=st.integers(1, 3))
def test_units_of_several_parts_fit_the_budget_and_exclude_what_they_share(cost, count, width):
    units = [*UNITS, (0, 1), (2, 3), (4, 5), (6, 7)]

    def costs_of(taken, candidates):
        return {unit: cost(frozenset().union(*map(halves, [*taken, unit]))) for unit in candidates}

    for path in (greedy(units, count, costs_of, parts=halves), beam(units, count, costs_of, width, parts=halves)):
        parts = [part for step in path for part in halves(step.unit)]
        assert len(parts) == len(set(parts)) == count
        assert not path or path[-1].cost == cost(frozenset(parts))


def test_a_pair_is_taken_where_its_halves_are_dear_alone():
    table = {frozenset({0}): 5.0, frozenset({1}): 6.0, frozenset({2}): 4.0, frozenset({0, 1}): 2.0}
    table |= {frozenset({0, 2}): 9.0, frozenset({1, 2}): 9.0}

    def costs_of(taken, candidates):
        return {unit: table[frozenset().union(*map(halves, [*taken, unit]))] for unit in candidates}

    units = [0, 1, 2, (0, 1)]
    assert [step.unit for step in greedy(units, 2, costs_of, parts=halves)] == [(0, 1)]
    assert [step.unit for step in beam(units, 2, costs_of, 3, parts=halves)] == [(0, 1)]


def quick(questions, most):
    return questions


@given(
    parts=st.lists(
        st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.7]) | number, min_size=3, max_size=3), min_size=1, max_size=6
    ),
    shared=st.lists(st.integers(1, 2), min_size=6, max_size=6),
    order=st.permutations(range(3)),
    together=st.integers(1, 4),
)
def test_a_candidate_is_given_up_only_where_another_adds_less(parts, shared, order, together):
    """The sizes of units divide what they add, as those of blocks do in a joint ranking."""
    units, asked = list(range(len(parts))), []

    def part(several, piece):
        assert len(several) <= together
        asked.extend((unit, piece) for unit in several)
        return [parts[unit][piece] for unit in several]

    known = best_first(units, order, part, lambda unit, some: sum(sorted(some)) / shared[unit], quick, together)
    assert len(asked) == len(set(asked)) == sum(map(len, known.values()))
    best = min(sum(sorted(row)) / shared[unit] for unit, row in enumerate(parts))
    for unit, some in known.items():
        adds = sum(sorted(some.values())) / shared[unit]
        assert all(some[piece] == parts[unit][piece] for piece in some)
        assert len(some) == 3 or adds > best
    assert min(sum(sorted(some.values())) / shared[unit] for unit, some in known.items() if len(some) == 3) == best


def test_hopeless_candidates_are_measured_on_one_piece():
    parts = {0: [1.0, 1.0, 1.0], 1: [9.0, 0.0, 0.0], 2: [4.0, 0.0, 0.0]}

    def part(units, piece):
        return [parts[unit][piece] for unit in units]

    known = best_first([0, 1, 2], [0, 1, 2], part, lambda _, some: sum(some), quick)
    assert {unit: len(some) for unit, some in known.items()} == {0: 3, 1: 1, 2: 1}
