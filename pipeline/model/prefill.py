"""Rows that wait to be decoded: what several have in common is read once, and the rest of each as it enters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from pipeline.model.cached_rows import CachedRows, joined
from pipeline.model.common_prefix import PASS, groups
from pipeline.model.positions import Positions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Prefixes are read ahead of their rows while they are so short that one pass over several takes no longer than one
# over each: then so many tokens of them are kept at most.
_AHEAD = 8 * PASS
Row = Sequence[int]


class Entered(NamedTuple):
    """Rows that have been read: their places, the states kept of them, and the logits (R, V) after them."""

    places: list[int]
    cached: CachedRows
    logits: torch.Tensor


@dataclass
class _Queue:
    """Places of rows that begin with the same tokens, and these as a row of their own once they have been read."""

    number: int
    start: Row
    places: list[int]
    prefix: CachedRows | None = None


class Waiting:
    """The rows that have not entered the batch, by what they have in common. The longest enter first."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row], size: int) -> None:
        """``size`` is how many rows a pass may read at most."""
        self._model, self._rows, self._size = model, rows, size
        positions = Positions.of(model)
        reach = positions.reach(len(rows[0]))
        self._queues: list[_Queue] = []
        for number, group in enumerate(sorted(groups(rows), key=lambda group: -len(rows[group.places[0]]))):
            shared = group.shared if positions.reach(group.shared) == reach else 0
            self._queues.append(_Queue(number, rows[group.places[0]][:shared], group.places))

    def __bool__(self) -> bool:
        return bool(self._queues)

    def enter(self, count: int) -> Iterator[Entered]:
        """Read as many of the rows as may enter, several in a pass where they need few tokens of padding."""
        entering: list[tuple[_Queue, int]] = []
        while self._queues and len(entering) < count:
            queue = self._queues[0]
            self._read_ahead()
            free = count - len(entering)
            entering += [(queue, place) for place in queue.places[:free]]
            queue.places = queue.places[free:]
            if not queue.places:
                self._queues.pop(0)
        for bare in (False, True):  # rows with nothing before them have no columns that others could lie beside
            alike = [(queue, place) for queue, place in entering if bare == (not queue.start)]
            alike.sort(key=lambda each: -self._rest(*each))
            for part in in_passes([self._rest(*each) for each in alike]):
                yield self._read(alike[part])

    def _rest(self, queue: _Queue, place: int) -> int:
        return len(self._rows[place]) - len(queue.start)

    def _read(self, asked: Sequence[tuple[_Queue, int]]) -> Entered:
        # Rows of one prefix side by side, so that it is copied once for all of them.
        asked = sorted(asked, key=lambda each: each[0].number)
        parts = []
        for _, same in groupby(asked, key=lambda each: each[0].number):
            (queue, _), *others = same
            rows = 1 + len(others)
            parts.append(queue.prefix.repeated(rows) if queue.prefix else CachedRows.empty(self._model, rows))
        cached = parts[0] if len(parts) == 1 else joined(parts)
        logits = cached.read([self._rows[place][len(queue.start) :] for queue, place in asked])
        return Entered([place for _, place in asked], cached, logits)

    def _read_ahead(self) -> None:
        """Read the prefix of the first queue unless it has been, and with it those of the next, if they are short."""
        first = self._queues[0]
        if first.prefix is not None or not first.start:
            return
        found: list[_Queue] = []
        for queue in self._queues[: self._size]:
            if queue.start and queue.prefix is None:
                width = max(len(each.start) for each in [*found, queue])
                if found and width * (len(found) + 1) > _AHEAD:
                    break
                found.append(queue)
        found.sort(key=lambda queue: -len(queue.start))
        for part in in_passes([len(queue.start) for queue in found]):
            prefixes = CachedRows.empty(self._model, len(found[part]))
            prefixes.read([queue.start for queue in found[part]])
            for number, queue in enumerate(found[part]):
                queue.prefix = prefixes.kept([number])


def in_passes(lengths: Sequence[int]) -> Iterator[slice]:
    """Split rows, longest first, into passes: each is split where that saves more padding than a pass costs."""
    pending = [slice(0, len(lengths))] if lengths else []
    while pending:
        part = pending.pop()
        longest = lengths[part.start]
        saved = {end: (part.stop - end) * (longest - lengths[end]) for end in range(part.start + 1, part.stop)}
        end = max(saved, key=saved.__getitem__, default=part.stop)
        if saved.get(end, 0) <= PASS:
            yield part
        else:
            pending += [slice(end, part.stop), slice(part.start, end)]
