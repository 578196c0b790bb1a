"""Log-likelihoods of continuations where a model takes no prefix tree, with the same result as for each alone.

A context runs once and its continuations share its cache. Where that would change the result, context and continuation
run as a whole sequence.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from pipeline.evaluate.answer import Reader, answers_of
from pipeline.evaluate.prefix_tree import Item, Tokens
from pipeline.model.as_read import ROUNDING, as_read, rounding_level
from pipeline.model.cached_rows import rows_of
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values
from pipeline.model.positions import Positions
from pipeline.model.short_pass import tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
# How many times the rounding of a dtype two ways to the same log-likelihood may differ.
TIMES = 4
_sharing: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class StraightPass:
    """Runs contexts, or whole sequences, in passes of at most ``batch_size`` rows.

    ``read`` takes what is wanted from the logits.
    """

    def __init__(self, model: PreTrainedModel, batch_size: int, read: Reader = answers_of) -> None:
        self._model, self._size, self._read = model, batch_size, read
        self._device, self._positions = Decoder(model).device, Positions.of(model)
        self._as_read = as_read(model)

    def answers(self, pairs: Mapping[int, tuple[Tokens, Sequence[int]]]) -> Iterator[list[tuple[int, Any]]]:
        """Yield what is read of (context, continuation) pairs, with their indices, context by context or batch."""
        shared: dict[Tokens, Item] = {}
        whole: dict[Tokens, Item] = {}
        for index, (context, continuation) in pairs.items():
            # The last token is predicted but never run.
            run = (*context, *continuation[:-1])
            tokens, items = (context, shared) if self._may_share(context, run) else (run, whole)
            items.setdefault(tokens, Item(tokens)).asked.append((index, continuation))
        for batch in self._batches(shared.values(), not self._as_read.batched):
            yield list(self.from_contexts(batch))
        for batch in self._batches(whole.values(), not self._as_read.alone):
            yield list(self.whole(batch))

    def _may_share(self, context: Tokens, run: Tokens) -> bool:
        """Return whether the model uses a cache and computes a context alone as within the whole sequence."""
        same = self._positions.reach(len(context)) == self._positions.reach(len(run))
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
            alone = [Item((*context, *answer[:-1]), [(n, answer)]) for context, own in contexts for n, answer in own]
            tried = StraightPass(self._model, 2)
            try:
                found = dict(tried.from_contexts([Item(tuple(context), own) for context, own in contexts]))
                expected = {n: answer for item in alone for n, answer in tried.whole([item])}
            except Exception as error:
                log.debug("contexts are not shared: %s", error)
                found = expected = {}
            near = max(TIMES * ROUNDING.get(self._model.dtype, 0.0), rounding_level(self._model))
            off = [abs(found[index][0] - value) > near * max(1.0, -value) for index, (value, _) in expected.items()]
            _sharing[self._model] = bool(off) and not any(off)
        return _sharing[self._model]

    def _batches(self, items: Iterable[Item], equal: bool = False) -> list[list[Item]]:
        """Group items into batches, the longest first; with ``equal``, only equal lengths, which need no padding."""
        ordered = sorted(items, key=lambda item: -len(item.tokens))
        lengths = [len(item.tokens) for item in ordered]
        return [ordered[run] for run in self._positions.runs(lengths, self._size, equal)]

    def whole(self, batch: list[Item]) -> Iterator[tuple[int, Any]]:
        """Score sequences without a cache, padded on the right, where causality hides the padding."""
        width = max(len(item.tokens) for item in batch)
        ids = [[*item.tokens, *[0] * (width - len(item.tokens))] for item in batch]
        first = min(len(item.tokens) - max(len(asked) for _, asked in item.asked) for item in batch)
        out = self._run(ids, use_cache=False, logits_to_keep=width - first)
        for row, item in zip(out.logits, batch, strict=True):
            end = len(item.tokens) - first
            for index, asked in item.asked:
                yield index, self._one(row[end - len(asked) : end], asked)

    def from_contexts(self, batch: list[Item]) -> Iterator[tuple[int, Any]]:
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
            yield index, self._one(out.logits[owner], asked)
        for start in range(0, len(longer), self._size):
            part = longer[start : start + self._size]
            owners = torch.tensor([owner for owner, *_ in part], device=self._device)
            later = self._continue(out.past_key_values, mask, owners, [asked for *_, asked in part])
            for (owner, index, asked), row in zip(part, later, strict=True):
                yield index, self._one(torch.cat([out.logits[owner], row[: len(asked) - 1]]), asked)

    def _one(self, logits: torch.Tensor, continuation: Sequence[int]) -> Any:
        """Read a continuation of T tokens by the logits (T, V) that predict them."""
        return next(self._read(logits, [continuation]))

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
            past_key_values=rows_of(cache, owners),
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
