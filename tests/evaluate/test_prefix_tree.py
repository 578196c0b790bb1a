"""The plan of a prefix tree: every item once, in rows that fit, each token's beginning before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.prefix_tree import Branch, Item, Row, grown, width
from pipeline.model.common_prefix import PASS

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)


def items(*tokens: tuple[int, ...]) -> list[Item]:
    return [Item(each, [(number, (*each[1:], 9)[-2:])]) for number, each in enumerate(tokens)]


def rows(branch: Branch, held: int = 0) -> list[tuple[int, Row]]:
    """Rows of a tree, with the tokens of their cache; what caches take from each other is checked on the way."""
    assert len(branch.tokens) >= held
    found = [(len(branch.tokens), row) for row in branch.rows]
    for each in branch.branches:
        assert each.tokens[: len(branch.tokens)] == branch.tokens
        found += rows(each, len(branch.tokens) + 1)
    return found


def run(branch: Branch, before: int = 0) -> int:
    """Tokens that go through a model."""
    own = len(branch.tokens) - before
    return own + sum(map(width, branch.rows)) + sum(run(each, len(branch.tokens)) for each in branch.branches)


def distinct(asked: list[Item]) -> int:
    return len({item.tokens[:end] for item in asked for end in range(1, len(item.tokens) + 1)})


@given(st.sets(TOKENS, min_size=1, max_size=40), st.integers(9, 30))
def test_every_item_is_in_one_row_behind_its_own_beginning(tokens, capacity):
    asked = items(*tokens)
    tree = grown(asked, capacity)
    found = []
    for held, row in rows(tree):
        assert 0 < width(row) <= capacity
        before: tuple[int, ...] = ()
        for placed in row:
            assert held <= min(placed.shared, placed.item.before)
            # In a row, an item begins anew behind the cache, or like the one before it.
            assert placed.shared == held or placed.item.tokens[: placed.shared] == before[: placed.shared]
            before = placed.item.tokens
            found.append(placed.item)
    assert sorted(item.tokens for item in found) == sorted(tokens)
    assert run(tree) >= distinct(asked)


def test_a_tree_that_fits_into_a_row_has_every_beginning_once():
    asked = items((1, 2, 3), (1, 2, 4, 5), (1, 2), (6,), (1, 7))
    tree = grown(asked, 20)
    assert run(tree) == distinct(asked) == 7
    assert [width(row) for row in tree.rows] == [7] and tree.branches == []


def test_a_long_beginning_of_many_items_is_a_cache():
    beginning = tuple(range(100, 200))
    asked = items(*((*beginning, number, number) for number in range(60)))
    tree = grown(asked, 110)
    (branch,) = tree.branches
    assert branch.tokens == beginning and not tree.rows
    assert run(tree) == distinct(asked) == 100 + 2 * 60


def test_a_short_one_is_repeated():
    asked = items(*((7, 8, number, *range(20)) for number in range(40)))
    tree = grown(asked, 50)
    assert tree.branches == [] and run(tree) == 2 * 20 + 21 * 40


def test_a_cache_goes_on_from_another():
    shots = tuple(range(1000, 1080))
    subjects = [(*shots, *range(2000 + 100 * number, 2090 + 100 * number)) for number in range(3)]
    asked = items(*((*subject, number, number + 1) for subject in subjects for number in range(60)))
    tree = grown(asked, 172)
    (outer,) = tree.branches
    assert outer.tokens == shots and sorted(branch.tokens for branch in outer.branches) == sorted(subjects)
    assert run(tree) == distinct(asked)


def test_batches_hold_a_budget_with_their_cache_and_padding():
    shots = tuple(range(1000, 1080))
    asked = items(*((*shots, number, *range(number % 7)) for number in range(90)))
    (branch,) = grown(asked, 90).branches
    for budget, entries in ((1, 1), (200, 10**6), (1000, 10**6), (10**6, 20000)):
        batches = list(branch.batches(budget, entries))
        assert sorted(id(row) for batch in batches for row in batch) == sorted(map(id, branch.rows))
        for batch in batches:
            wide = max(map(width, batch))
            assert len(batch) == 1 or len(batch) * (80 + wide) <= budget
            assert len(batch) == 1 or len(batch) * wide * (80 + wide) <= entries
            assert sum(wide - width(row) for row in batch) <= PASS
