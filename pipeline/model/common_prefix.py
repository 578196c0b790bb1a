"""Groups of prompts that begin with the same tokens, such as the examples before every item of a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

# A pass of its own costs about as much as so many tokens in another, since it reads all weights once more.
PASS = 64
Tokens = Sequence[int]


@dataclass
class Group:
    """Indices of prompts, longest first, whose first ``shared`` tokens are the same."""

    shared: int
    places: list[int] = field(default_factory=list)

    @property
    def saved(self) -> int:
        """Number of tokens that need not be read again."""
        return self.shared * (len(self.places) - 1)


def groups(prompts: Sequence[Tokens]) -> list[Group]:
    """Group prompts, each of at least one token, so that common prefixes save many tokens.

    Of each prompt one token at least is left after the prefix. Prompts whose prefixes save too little are one group
    without a prefix.
    """
    # Sorted, prompts with a common prefix are neighbours, and what a group has in common is that of its ends.
    pending = [sorted(range(len(prompts)), key=lambda place: tuple(prompts[place]))]
    found, rest = [], Group(0)
    while pending:
        whole = _group(prompts, pending.pop())
        parts = list(_parts(prompts, whole))
        if sum(_group(prompts, part).saved for part in parts) > whole.saved:
            pending += parts
        elif whole.saved >= PASS:
            found.append(whole)
        else:
            rest.places += whole.places
    for group in (several := [*found, rest]):
        group.places.sort(key=lambda place: -len(prompts[place]))
    return [group for group in several if group.places]


def _group(prompts: Sequence[Tokens], places: list[int]) -> Group:
    shared = common(prompts[places[0]], prompts[places[-1]])
    return Group(min(shared, *(len(prompts[place]) - 1 for place in places)), places)


def _parts(prompts: Sequence[Tokens], group: Group) -> Iterator[list[int]]:
    """Split sorted neighbours where they have no more in common than the whole group."""
    part: list[int] = []
    for place in group.places:
        if part and common(prompts[part[-1]], prompts[place]) <= group.shared:
            yield part
            part = []
        part.append(place)
    yield part


def common(one: Tokens, other: Tokens) -> int:
    """Return how many tokens two texts have in common from the beginning."""
    pairs: Iterable[tuple[int, int]] = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
