"""Greedy continuations of many prompts: a row that has stopped leaves the batch, and a waiting one enters.

Each row gets the tokens that ``model.generate`` gives it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteriaList
from transformers.generation import EosTokenCriteria, GenerationMode, MaxLengthCriteria

from pipeline.model.as_read import as_read
from pipeline.model.cached_rows import CachedRows, joined, span
from pipeline.model.common_prefix import groups
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values
from pipeline.model.generation import continue_rows, with_more
from pipeline.model.positions import Positions

# Rows leave and enter once this share of the batch has stopped, since each time all states are copied.
_STOPPED = 0.25
Stops = Callable[[int, int], StoppingCriteriaList]


def continue_many(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    length: int,
    batch_size: int,
    pad_token_id: int,
    stops: Stops,
    advance: Callable[[int], object] = lambda rows: None,
    **settings: Any,
) -> list[list[int]]:
    """Generate at most ``length`` new tokens for each row of token ids, in batches of at most ``batch_size`` rows.

    ``stops`` and ``settings`` are those of ``pipeline.model.generation.continue_rows``, which continues what cannot be
    decoded here: where tokens are drawn or their logits changed, and rows beyond the `span` of the model. The caller
    cuts the tokens beyond a row's end. Equal rows are continued once, unless tokens are drawn. ``advance`` is called
    with the number of rows that are ready. Raises ValueError for logits that are not finite.
    """
    plan = _planned(model, rows[0], length, pad_token_id, settings)
    places: dict[Any, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault((tuple(row), place if plan.config.do_sample else 0), []).append(place)
    asked, owners = [row for row, _ in places], list(places.values())
    found: list[list[int]] = [[]] * len(rows)

    def ready(which: int, tokens: list[int]) -> None:
        for place in owners[which]:
            found[place] = tokens
        advance(len(owners[which]))

    left = list(range(len(asked)))
    if plan.is_greedy:
        for together in _together(model, asked, length):
            part = [asked[place] for place in together]
            for text in _Batch(model, part, length, batch_size, plan.ends, lambda: stops(0, 1)).texts():
                ready(together[text.place], text.tokens)
            left = sorted({*left} - {*together})
    for start in range(0, len(left), batch_size):
        part = left[start : start + batch_size]
        lengths = [length] * len(part)
        texts = continue_rows(model, [asked[place] for place in part], lengths, pad_token_id, stops, **settings)
        for place, tokens in zip(part, texts, strict=True):
            ready(place, tokens)
    return found


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


def _together(model: PreTrainedModel, rows: Sequence[Sequence[int]], length: int) -> Iterator[list[int]]:
    """Yield the places of rows that may be decoded together, as far as there are such."""
    positions, most = Positions.of(model), span(model)
    found: dict[float, list[int]] = {}
    for place, row in enumerate(rows):
        reach, end = positions.reach(len(row)), len(row) + length - 1
        if end < most and positions.reach(end) == reach:
            found.setdefault(reach, []).append(place)
    yield from found.values()


@dataclass
class _Text:
    """A row in the batch: its place among all rows, its new tokens, and whether it has stopped."""

    place: int
    stops: StoppingCriteriaList
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False


class _Batch:
    """The rows that are being decoded, and those that wait, by what they have in common.

    ``ends`` are criteria for the last tokens of all rows, ``stops`` makes criteria for the new tokens of one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Sequence[int]],
        length: int,
        size: int,
        ends: StoppingCriteriaList,
        stops: Callable[[], StoppingCriteriaList],
    ) -> None:
        self._model, self._rows, self._length, self._size = model, rows, length, size
        self._ends, self._stops = ends, stops
        self._waiting = groups(rows)
        positions = Positions.of(model)
        for group in self._waiting:
            if positions.reach(group.shared) != positions.reach(len(rows[0])):
                group.shared = 0
        self._texts: list[_Text] = []
        self._cached = self._prefix = CachedRows.empty(model, 0)
        # Columns that the longest row takes, alone.
        self._most = max(map(len, rows)) + length - 1

    @torch.inference_mode()
    def texts(self) -> Iterator[_Text]:
        """Yield the rows as they have stopped."""
        while self._waiting or self._texts:
            if self._is_due():
                yield from (text for text in self._texts if text.stopped)
                self._leave()
                while self._waiting and len(self._texts) < self._size:
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
        """Let rows of the first group enter; the prefix that they have in common is read with the first of them."""
        group, free = self._waiting[0], self._size - len(self._texts)
        entering, group.places = group.places[:free], group.places[free:]
        if not group.shared:
            cached = CachedRows.empty(self._model, len(entering))
        else:
            if self._prefix.mask.shape[1] == 0:
                self._prefix = CachedRows.empty(self._model, 1)
                self._prefix.read([self._rows[entering[0]][: group.shared]])
            cached = self._prefix.repeated(len(entering))
        if not group.places:
            self._prefix = CachedRows.empty(self._model, 0)
            self._waiting.pop(0)
        logits = cached.read([self._rows[place][group.shared :] for place in entering])
        new = [_Text(place, self._stops()) for place in entering]
        self._choose(new, logits)
        self._cached = joined([self._cached, cached]) if self._texts else cached
        self._texts += new

    def _choose(self, texts: Sequence[_Text], logits: torch.Tensor) -> None:
        """Give each row that goes on its likeliest token, by logits (R, V)."""
        check_values(logits, "logits of generated tokens")
        # In the dtype in which the library compares them.
        chosen = logits.float().argmax(-1)
        ended = self._ends(chosen[:, None], None).tolist()
        for text, token, end in zip(texts, chosen.tolist(), ended, strict=True):
            if not text.stopped:
                text.tokens.append(token)
                read = torch.tensor([text.tokens])
                text.stopped = end or len(text.tokens) == self._length or bool(text.stops(read, None))
