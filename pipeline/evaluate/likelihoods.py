"""Log-likelihoods of continuations, computed in batches with the same result as for each alone.

A context runs once and its continuations share its cache. Where that would change the result, context and continuation
run as a whole sequence.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from pipeline.common.terminal import progress
from pipeline.model.as_read import ROUNDING, as_read
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values
from pipeline.model.positions import Positions
from pipeline.model.short_pass import tokens
from pipeline.model.softmax import log_normaliser

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
# How many times the rounding of a dtype two ways to the same log-likelihood may differ.
_TIMES = 4
_sharing: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
# Log-likelihood of a continuation in nats, and whether each of its tokens is the likeliest.
Answer = tuple[float, bool]


@dataclass(frozen=True)
class _Item:
    """Token ids to run through the model, and the continuations to score with them, each with its index."""

    tokens: Sequence[int]
    asked: list[tuple[int, Sequence[int]]] = field(default_factory=list)


def log_likelihoods(
    model: PreTrainedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], batch_size: int
) -> list[Answer]:
    """Compute the log-likelihood of each (context, continuation) of token ids; an empty continuation is certain.

    Contexts have at least one token and fit into the model with their continuations. No forward pass has more than
    ``batch_size`` rows. Sums are in float64. Raises ValueError for logits that are not finite.
    """
    scorer = _Scorer(model, batch_size)
    answers: list[Answer] = [(0.0, True)] * len(pairs)
    for index, answer in scorer.answers(pairs):
        answers[index] = answer
    return answers


class _Scorer:
    def __init__(self, model: PreTrainedModel, batch_size: int) -> None:
        self._model, self._size = model, batch_size
        self._device, self._positions = Decoder(model).device, Positions.of(model)
        self._as_read = as_read(model)

    @torch.inference_mode()
    def answers(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[tuple[int, Answer]]:
        shared: dict[tuple[int, ...], _Item] = {}
        whole: dict[tuple[int, ...], _Item] = {}
        for index, (context, continuation) in enumerate(pairs):
            if continuation:
                # The last token is predicted but never fed.
                fed = [*context, *continuation[:-1]]
                tokens, items = (context, shared) if self._may_share(context, fed) else (fed, whole)
                items.setdefault(tuple(tokens), _Item(tokens)).asked.append((index, continuation))
        equal = not self._as_read.batched
        jobs = [(self._shared, batch) for batch in self._batches(shared.values(), equal)]
        jobs += [(self._whole, batch) for batch in self._batches(whole.values(), not self._as_read.alone)]
        for score, batch in progress(jobs, "multiple choice", len(jobs)):
            yield from score(batch)

    def _may_share(self, context: Sequence[int], fed: Sequence[int]) -> bool:
        """Return whether the model uses a cache and computes a context alone as within the whole sequence."""
        same = self._positions.reach(len(context)) == self._positions.reach(len(fed))
        # With a cache, positions are given, from 0, as the library's own generation gives them.
        return same and Decoder(self._model).uses_cache and self._as_read.generate and self._shares()

    def _shares(self) -> bool:
        """Return whether continuations may share the cache of their context, tried once for a model on a few tokens.

        Not every cache can be had twice: the states of mixers are changed in place, and some models return none.
        """
        if self._model not in _sharing:
            ids = tokens(self._model)[0].tolist()
            asked: list[tuple[int, Sequence[int]]] = list(
                enumerate([ids[-4:], ids[-3:], ids[-2:], ids[-4:-2], ids[-1:]])
            )
            # A shorter context is padded, where that is done.
            contexts = [(ids[:-4], asked[::2]), (ids[3 * self._as_read.batched : -4], asked[1::2])]
            alone = [_Item([*context, *answer[:-1]], [(n, answer)]) for context, own in contexts for n, answer in own]
            tried = _Scorer(self._model, 2)
            try:
                found = dict(tried._shared([_Item(context, own) for context, own in contexts]))
                expected = {n: answer for item in alone for n, answer in tried._whole([item])}
            except Exception as error:
                log.debug("contexts are not shared: %s", error)
                found = expected = {}
            near = _TIMES * ROUNDING.get(self._model.dtype, 0.0)
            off = [abs(found[index][0] - value) > near * max(1.0, -value) for index, (value, _) in expected.items()]
            _sharing[self._model] = bool(off) and not any(off)
        return _sharing[self._model]

    def _batches(self, items: Iterable[_Item], equal: bool = False) -> list[list[_Item]]:
        """Group items into batches, the longest first; with ``equal``, only equal lengths, which need no padding."""
        ordered = sorted(items, key=lambda item: -len(item.tokens))
        lengths = [len(item.tokens) for item in ordered]
        return [ordered[run] for run in self._positions.runs(lengths, self._size, equal)]

    def _whole(self, batch: list[_Item]) -> Iterator[tuple[int, Answer]]:
        """Score sequences without a cache, padded on the right, where causality hides the padding."""
        width = max(len(item.tokens) for item in batch)
        ids = [[*item.tokens, *[0] * (width - len(item.tokens))] for item in batch]
        first = min(len(item.tokens) - max(len(asked) for _, asked in item.asked) for item in batch)
        out = self._run(ids, use_cache=False, logits_to_keep=width - first)
        for row, item in zip(out.logits, batch, strict=True):
            end = len(item.tokens) - first
            for index, asked in item.asked:
                yield index, self._answer(row[end - len(asked) : end], asked)

    def _shared(self, batch: list[_Item]) -> Iterator[tuple[int, Answer]]:
        """Run contexts, padded on the left to end together, and score their continuations from the cache."""
        width = max(len(item.tokens) for item in batch)
        ids = [[*[0] * (width - len(item.tokens)), *item.tokens] for item in batch]
        read = [[0] * (width - len(item.tokens)) + [1] * len(item.tokens) for item in batch]
        mask = torch.tensor(read, device=self._device)
        # Sorted by length to keep padding small.
        rows = sorted(
            ((owner, *asked) for owner, item in enumerate(batch) for asked in item.asked), key=lambda row: -len(row[2])
        )
        longer = [row for row in rows if len(row[2]) > 1]
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = self._run(ids, attention_mask=mask, position_ids=positions, use_cache=bool(longer), logits_to_keep=1)
        for owner, index, asked in rows[len(longer) :]:
            yield index, self._answer(out.logits[owner], asked)
        for start in range(0, len(longer), self._size):
            part = longer[start : start + self._size]
            owners = torch.tensor([owner for owner, *_ in part], device=self._device)
            later = self._continue(out.past_key_values, mask, owners, [asked for *_, asked in part])
            for (owner, index, asked), row in zip(part, later, strict=True):
                yield index, self._answer(torch.cat([out.logits[owner], row[: len(asked) - 1]]), asked)

    def _continue(
        self, cache: Any, mask: torch.Tensor, owners: torch.Tensor, continuations: list[Sequence[int]]
    ) -> torch.Tensor:
        """Compute logits (R, T - 1, V) after each token but the last of R continuations of at most T tokens."""
        fed = max(map(len, continuations)) - 1
        ids = [([*tokens[:-1]] + [0] * fed)[:fed] for tokens in continuations]
        own = torch.tensor([len(tokens) - 1 for tokens in continuations], device=self._device)
        # Padding takes the last position in use: beyond it there may be no position, or other rotary factors.
        steps = torch.arange(1, fed + 1, device=self._device).minimum(own[:, None])
        out = self._run(
            ids,
            attention_mask=torch.cat([mask[owners], mask.new_ones(len(owners), fed)], 1),
            position_ids=mask.sum(1)[owners, None] - 1 + steps,
            past_key_values=_rows_of(cache, owners),
            use_cache=True,
        )
        logits: torch.Tensor = out.logits
        return logits

    def _run(self, ids: list[list[int]], **options: Any) -> Any:
        """Run a forward pass and check its logits."""
        out = self._model(torch.tensor(ids, device=self._device), **options)
        # Some classes compute all logits, whatever they are asked for.
        out.logits = out.logits[:, -options.get("logits_to_keep", 0) :]
        check_values(out.logits, "log-likelihoods")
        return out

    def _answer(self, logits: torch.Tensor, tokens: Sequence[int]) -> Answer:
        """Score T tokens by the logits (T, V) that predict them."""
        target = torch.tensor(tokens, device=logits.device)
        # In float64, since in float32 the many small terms of a large vocabulary get lost.
        logp = logits.gather(-1, target.unsqueeze(-1)).squeeze(-1).double() - log_normaliser(logits)
        return float(logp.sum()), bool((logits.argmax(-1) == target).all())


def _rows_of(cache: Any, rows: torch.Tensor) -> Any:
    """Return a cache of the given rows, which may repeat; the original cache stays unchanged for further use."""
    part = copy.copy(cache)
    # Layers replace their tensors when they are selected from or extended, and never write into them.
    part.layers = [copy.copy(layer) for layer in cache.layers]
    part.batch_select_indices(rows)
    return part
