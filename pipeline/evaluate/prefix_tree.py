"""Plan of what goes through a model: of many token sequences, every shared beginning once.

Sequences lie side by side in rows. One that begins like the one before it in its row adds the tokens that follow the
common beginning, as a branch of a tree; the rows' mask shows each token its own beginning only. A beginning that many
rows would repeat becomes a cache, from which they go on. What is repeated and what is cached is decided by counting
tokens. Nothing here knows a model.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from pipeline.model.common_prefix import PASS, common

# Rows may be as wide as so many parts of the widest, but not under a quarter.
_PARTS = 16
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """Token ids to run through a model, and the continuations that end them, each with its index and without its last
    token, which is predicted but never run."""

    tokens: Tokens
    asked: list[tuple[int, Sequence[int]]] = field(default_factory=list)

    @property
    def before(self) -> int:
        """How many tokens come before the first whose prediction is asked for."""
        return min(len(self.tokens) - len(continuation) for _, continuation in self.asked)


@dataclass(frozen=True)
class Placed:
    """An item in a row: it shares its first ``shared`` tokens with the item before it, or with the row's cache."""

    item: Item
    shared: int


Row = list[Placed]


@dataclass
class Branch:
    """Rows that go on from the same ``tokens``, which a cache holds, and branches that go on from some more."""

    tokens: Tokens = ()
    rows: list[Row] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    # Ranges of neighbouring items that fit into a row together, before rows are made of them.
    runs: list[tuple[int, int]] = field(default_factory=list)

    def batches(self, budget: int, entries: int) -> Iterator[list[Row]]:
        """Yield rows to run together, the widest first.

        With padding and cache they have at most ``budget`` tokens, and ``entries`` in their mask, or it is one row.
        Their padding is worth less than another pass.
        """
        batch: list[Row] = []
        padding = 0
        for row in sorted(self.rows, key=width, reverse=True):
            if batch:
                wide = width(batch[0])
                whole, padding = len(self.tokens) + wide, padding + wide - width(row)
                if padding > PASS or (len(batch) + 1) * max(whole / budget, wide * whole / entries) > 1:
                    yield batch
                    batch, padding = [], 0
            batch = [*batch, row]
        if batch:
            yield batch


def width(row: Row) -> int:
    """Return how many tokens a row has, without those of its cache."""
    return sum(len(placed.item.tokens) - placed.shared for placed in row)


def planned(items: Sequence[Item], capacity: int, budget: int, entries: int, wide: float) -> Branch:
    """Plan as `grown` with at most this capacity: the one of several that costs least.

    Narrower rows may be more even, and so need less padding. ``wide`` is the length at which attention takes as long as
    all the rest.
    """
    longest = max(len(item.tokens) for item in items)
    capacities = dict.fromkeys(max(longest, capacity * part // _PARTS) for part in range(_PARTS, _PARTS // 4, -1))
    return min((grown(items, each) for each in capacities), key=lambda tree: cost(tree, budget, entries, wide))


def cost(branch: Branch, budget: int, entries: int, wide: float, before: int = 0) -> float:
    """Return what a tree costs, in tokens: caches, rows with padding, attention, and the passes themselves."""
    whole = len(branch.tokens)
    total = (whole - before) * (1 + whole / wide) + (PASS if whole else 0)
    for batch in branch.batches(budget, entries):
        own = width(batch[0])
        total += len(batch) * own * (1 + (whole + own) / wide) + PASS
    return total + sum(cost(each, budget, entries, wide, whole) for each in branch.branches)


def grown(items: Iterable[Item], capacity: int) -> Branch:
    """Plan the passes over different items, in rows of at most ``capacity`` tokens; no item has more than these."""
    plan = _Plan(sorted(items, key=lambda item: item.tokens), capacity)
    root = Branch()
    plan.split(root)
    return root


class _Plan:
    def __init__(self, ordered: list[Item], capacity: int) -> None:
        self._items, self._capacity = ordered, capacity
        # Sorted, neighbours share the most.
        self._shared = [0, *(common(one.tokens, other.tokens) for one, other in pairwise(ordered))]
        added = (len(item.tokens) - shared for item, shared in zip(ordered, self._shared, strict=True))
        self._sums = [0, *accumulate(added)]

    def split(self, root: Branch) -> None:
        """Divide all items among rows, and among branches where a cache saves more than another pass is worth."""
        waiting, branches = [(0, len(self._items), root)] if self._items else [], [root]
        while waiting:
            start, end, branch = waiting.pop()
            size = self._size(start, end, branch)
            if size <= self._capacity:
                branch.runs.append((start, end))
                continue
            common_length = min(self._shared[start + 1 : end])
            held = min(common_length, *(item.before for item in self._items[start:end]))
            repeats = math.ceil(size / self._capacity) - 1
            if repeats * (held - len(branch.tokens)) > PASS:
                branch.branches.append(Branch(self._items[start].tokens[:held]))
                branch = branch.branches[-1]
                branches.append(branch)
            waiting += [(*part, branch) for part in self._parts(start, end, common_length, branch)]
        for branch in branches:
            branch.rows = list(self._rows(branch))
            branch.runs.clear()

    def _parts(self, start: int, end: int, shared: int, branch: Branch) -> Iterator[tuple[int, int]]:
        """Yield the children of a node that is too large for a row, small neighbours together."""
        cuts = [start, *(at for at in range(start + 1, end) if self._shared[at] == shared), end]
        first = start
        for child, after in pairwise(cuts):
            if first < child and self._size(first, after, branch) > self._capacity:
                yield first, child
                first = child
        yield first, end

    def _size(self, start: int, end: int, branch: Branch) -> int:
        """Return how many tokens neighbouring items add to a row of a branch."""
        own = len(self._items[start].tokens) - len(branch.tokens)
        return own + self._sums[end] - self._sums[start + 1]

    def _rows(self, branch: Branch) -> Iterator[Row]:
        """Yield rows: each run, the longest first, joins the fullest row that has room for it."""
        rows: list[Row] = []
        room: list[tuple[int, int]] = []
        for start, end in sorted(branch.runs, key=lambda run: self._size(run[0], run[1], branch), reverse=True):
            size = self._size(start, end, branch)
            at = bisect.bisect_left(room, (size, 0))
            left, number = room.pop(at) if at < len(room) else (self._capacity, len(rows))
            if number == len(rows):
                rows.append([])
            rows[number] += self._placed(start, end, branch)
            bisect.insort(room, (left - size, number))
        yield from rows

    def _placed(self, start: int, end: int, branch: Branch) -> Row:
        shared = [len(branch.tokens), *self._shared[start + 1 : end]]
        return [Placed(item, own) for item, own in zip(self._items[start:end], shared, strict=True)]
