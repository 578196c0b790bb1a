"""Greedy continuations of many prompts: a row that has stopped leaves the batch, and a waiting one enters.

Each row gets the tokens that ``model.generate`` gives it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, StoppingCriteriaList
from transformers.generation import EosTokenCriteria, GenerationMode, MaxLengthCriteria

from pipeline.model.as_read import as_read
from pipeline.model.cached_rows import CachedRows, joined, span
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values
from pipeline.model.generation import continue_rows, with_more
from pipeline.model.positions import Positions
from pipeline.model.prefill import Waiting

# Rows leave and enter once this share of the batch has stopped, since each time all states are copied.
_STOPPED = 0.25
Stops = Callable[[int, int], StoppingCriteriaList]


@dataclass(frozen=True)
class Until:
    """When a continuation ends: after ``length`` new tokens, or by one of the criteria ``stops(T, B)``.

    ``stops`` makes the criteria for B rows that begin with T tokens.
    """

    length: int
    stops: Stops


def continue_many(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    until: Sequence[Until],
    batch_size: int,
    pad_token_id: int,
    advance: Callable[[int], object] = lambda rows: None,
    **settings: Any,
) -> list[list[int]]:
    """Continue each row of token ids until its own end, in batches of at most ``batch_size`` rows.

    ``settings`` are those of ``pipeline.model.generation.continue_rows``, which continues what cannot be decoded here:
    where tokens are drawn or their logits changed, and rows beyond the `span` of the model. The caller cuts the tokens
    beyond a row's end. Equal rows that end alike are continued once, unless tokens are drawn. ``advance`` is called
    with the number of rows that are ready. Raises ValueError for logits that are not finite.
    """
    plan = _planned(model, rows[0], max(each.length for each in until), pad_token_id, settings)
    places: dict[Any, list[int]] = {}
    for place, (row, end) in enumerate(zip(rows, until, strict=True)):
        places.setdefault((tuple(row), end, place if plan.config.do_sample else 0), []).append(place)
    asked, owners = [_Asked(row, end) for row, end, _ in places], list(places.values())
    found: list[list[int]] = [[]] * len(rows)

    def ready(which: int, tokens: list[int]) -> None:
        for place in owners[which]:
            found[place] = tokens
        advance(len(owners[which]))

    left = list(range(len(asked)))
    if plan.is_greedy:
        for part in _together(model, asked):
            for text in _Batch(model, [asked[place] for place in part], batch_size, plan.ends).texts():
                ready(part[text.place], text.tokens)
            left = sorted({*left} - {*part})
    for part in _ending_alike(asked, left, batch_size):
        end = asked[part[0]].until
        lengths = [end.length] * len(part)
        texts = continue_rows(model, [asked[place].row for place in part], lengths, pad_token_id, end.stops, **settings)
        for place, tokens in zip(part, texts, strict=True):
            ready(place, tokens)
    return found


class _Asked(NamedTuple):
    """Row of token ids to continue."""

    row: Sequence[int]
    until: Until

    @property
    def last(self) -> int:
        """The most tokens of the row and its continuation that are read."""
        return len(self.row) + self.until.length - 1


def _ending_alike(asked: Sequence[_Asked], places: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield batches of the places of rows that end alike."""
    found: dict[Until, list[int]] = {}
    for place in places:
        found.setdefault(asked[place].until, []).append(place)
    for alike in found.values():
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


@dataclass(frozen=True)
class _Plan:
    """How the library would generate: its final configuration, processors of logits, and criteria to stop."""

    config: Any
    processors: Sequence[Any]
    criteria: StoppingCriteriaList

    @property
    def is_greedy(self) -> bool:
        """Whether each token is the likeliest one, up to an end-of-text token or the greatest length."""
        known = all(isinstance(each, EosTokenCriteria | MaxLengthCriteria) for each in self.criteria)
        return known and not self.processors and self.config.get_generation_mode() == GenerationMode.GREEDY_SEARCH

    @property
    def ends(self) -> StoppingCriteriaList:
        return StoppingCriteriaList(each for each in self.criteria if isinstance(each, EosTokenCriteria))


def _planned(
    model: PreTrainedModel, row: Sequence[int], length: int, pad_token_id: int, settings: dict[str, Any]
) -> _Plan:
    """Let the library prepare the generation from one row, as far as the first pass."""
    plans = []

    def decode(model: Any, input_ids: torch.Tensor, **prepared: Any) -> torch.Tensor:
        names = ("generation_config", "logits_processor", "stopping_criteria")
        plans.append(_Plan(*(prepared[name] for name in names)))
        return input_ids

    ids = torch.tensor([list(row)], device=Decoder(model).device)
    mask = {"attention_mask": torch.ones_like(ids)} if as_read(model).generate else {}
    options = with_more(settings, max_new_tokens=length, pad_token_id=pad_token_id, use_cache=False)
    model.generate(ids, custom_generate=decode, **mask, **options)
    return plans[0]


def _together(model: PreTrainedModel, asked: Sequence[_Asked]) -> Iterator[list[int]]:
    """Yield the places of rows that may be decoded together, as far as there are such."""
    positions, most = Positions.of(model), span(model)
    found: dict[float, list[int]] = {}
    for place, each in enumerate(asked):
        reach = positions.reach(len(each.row))
        if each.last < most and positions.reach(each.last) == reach:
            found.setdefault(reach, []).append(place)
    yield from found.values()


class _Text:
    """A row in the batch: its place among all rows, its new ``tokens``, and whether it has ``stopped``."""

    def __init__(self, place: int, until: Until) -> None:
        self.place, self.stopped = place, False
        self.tokens: list[int] = []
        self._length, self._stops = until.length, until.stops(0, 1)

    def add(self, token: int, is_end: bool) -> None:
        """Add a token, and stop if it is the last one."""
        self.tokens.append(token)
        read = torch.tensor([self.tokens])
        self.stopped = is_end or len(self.tokens) == self._length or bool(self._stops(read, None))


class _Batch:
    """The rows that are being decoded, and those that wait. ``ends`` are criteria for the last tokens of all rows."""

    def __init__(self, model: PreTrainedModel, asked: Sequence[_Asked], size: int, ends: StoppingCriteriaList) -> None:
        self._model, self._asked, self._size, self._ends = model, asked, size, ends
        self._waiting = Waiting(model, [each.row for each in asked], size)
        self._texts: list[_Text] = []
        self._cached = CachedRows.empty(model, 0)
        # Columns that the longest row takes, alone.
        self._most = max(each.last for each in asked)

    @torch.inference_mode()
    def texts(self) -> Iterator[_Text]:
        """Yield the rows as they have stopped."""
        while self._waiting or self._texts:
            if self._is_due():
                yield from (text for text in self._texts if text.stopped)
                self._leave()
                self._enter()
            else:
                logits = self._cached.read([[] if text.stopped else text.tokens[-1:] for text in self._texts])
                self._choose(self._texts, logits)

    def _is_due(self) -> bool:
        """Return whether rows should leave and enter: many may, or the batch is as wide as any row alone."""
        going = sum(not text.stopped for text in self._texts)
        rows = self._size if self._waiting else len(self._texts)
        return rows - going >= _STOPPED * rows or self._cached.mask.shape[1] == self._most

    def _leave(self) -> None:
        going = [place for place, text in enumerate(self._texts) if not text.stopped]
        self._texts = [self._texts[place] for place in going]
        self._cached = self._cached.kept(going) if going else CachedRows.empty(self._model, 0)

    def _enter(self) -> None:
        parts = [self._cached] if self._texts else []
        for places, cached, logits in self._waiting.enter(self._size - len(self._texts)):
            new = [_Text(place, self._asked[place].until) for place in places]
            self._choose(new, logits)
            self._texts += new
            parts.append(cached)
        if len(parts) > 1:
            self._cached = joined(parts)
        elif parts:
            self._cached = parts[0]

    def _choose(self, texts: Sequence[_Text], logits: torch.Tensor) -> None:
        """Give each row that goes on its likeliest token, by logits (R, V)."""
        check_values(logits, "logits of generated tokens")
        # In the dtype in which the library compares them.
        chosen = logits.float().argmax(-1)
        ended = self._ends(chosen[:, None], None).tolist()
        for text, token, end in zip(texts, chosen.tolist(), ended, strict=True):
            if not text.stopped:
                text.add(token, end)
