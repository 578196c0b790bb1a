"""Rows of text with the states that a model keeps of them: rows are repeated, taken out, and put beside others."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from pipeline.model.as_read import alike, as_read, rounding_level
from pipeline.model.decoder import Decoder
from pipeline.model.short_pass import evaluating, tokens

log = logging.getLogger(__name__)
_tried: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


@dataclass
class CachedRows:
    """R rows in a model's cache of T columns. ``mask`` (R, T) is 1 where a column holds a token of its row."""

    model: PreTrainedModel
    cache: Any
    mask: torch.Tensor

    @classmethod
    def empty(cls, model: PreTrainedModel, rows: int) -> CachedRows:
        mask = torch.zeros(rows, 0, dtype=torch.long, device=Decoder(model).device)
        return cls(model, DynamicCache(config=model.config), mask)

    def read(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Let each row read further tokens, padded in front to the same number; return the logits (R, V) after them.

        A row that is given no token reads nothing, and its logits mean nothing.
        """
        width = max(map(len, texts))
        read = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts], device=self.mask.device)
        ids = torch.tensor([[0] * (width - len(text)) + list(text) for text in texts], device=self.mask.device)
        self.mask = torch.cat([self.mask, read], 1)
        out = self.model(
            ids,
            attention_mask=self.mask,
            position_ids=(self.mask.cumsum(1) - 1).clamp(min=0)[:, -width:],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def repeated(self, times: int) -> CachedRows:
        """Return so many copies of a single row, which itself stays as it is."""
        cache = copied(self.cache)
        cache.batch_repeat_interleave(times)
        return CachedRows(self.model, cache, self.mask.repeat(times, 1))

    def kept(self, rows: Sequence[int]) -> CachedRows:
        """Return some rows, at least one, without the columns before the first token of all of them."""
        places = torch.tensor(rows, device=self.mask.device)
        cache = rows_of(self.cache, places)
        mask = self.mask[places]
        first = int(mask.any(0).int().argmax())
        found = CachedRows(self.model, cache, mask[:, first:])
        return joined([found]) if first else found


def copied(cache: Any) -> Any:
    """Return the same states once more: layers replace their tensors when they change, and never write into them."""
    found = copy.copy(cache)
    found.layers = [copy.copy(layer) for layer in cache.layers]
    return found


def rows_of(cache: Any, rows: torch.Tensor) -> Any:
    """Return a cache of the given rows, which may repeat; the original cache stays unchanged for further use."""
    part = copied(cache)
    part.batch_select_indices(rows)
    return part


def joined(parts: Sequence[CachedRows]) -> CachedRows:
    """Put rows below one another, padded in front to the same number of columns."""
    width = max(part.mask.shape[1] for part in parts)
    cache = copied(parts[0].cache)
    for layer, *others in zip(cache.layers, *(part.cache.layers for part in parts), strict=True):
        # A layer that shares the states of another has none.
        if layer.keys is not None:
            keys, values = (
                torch.cat([_padded(getattr(own, name), part, width) for own, part in zip(others, parts, strict=True)])
                for name in ("keys", "values")
            )
            layer.reset()
            layer.update(keys, values)
    mask = torch.cat([nn.functional.pad(part.mask, (width - part.mask.shape[1], 0)) for part in parts])
    return CachedRows(parts[0].model, cache, mask)


def _padded(states: torch.Tensor, part: CachedRows, width: int) -> torch.Tensor:
    """Bring states (R, heads, T, D), of which the last columns are those of the mask, to so many columns."""
    own = part.mask.shape[1]
    return nn.functional.pad(states[:, :, -own:], (0, 0, width - own, 0))


def span(model: PreTrainedModel) -> float:
    """Return how many tokens a row may have to be continued in `CachedRows` as alone: infinite, or 0 for none at all.

    Tried once on a few tokens: some models keep no states, or such that cannot be taken apart, as those of recurrent
    mixers. States of a sliding window are kept apart while they fit into the window.
    """
    if model not in _tried:
        how = as_read(model)
        able = how.generate and how.batched and Decoder(model).uses_cache
        _tried[model] = _span(model) if able else 0
    return _tried[model]


@torch.inference_mode()
def _span(model: PreTrainedModel) -> float:
    ids = tokens(model)[0].tolist()
    first, second = ids[:4], ids[:3:-1]
    # Rows of several lengths with a common prefix, and others beside them.
    texts = [[*first, *second[:4]], [*first, *second[3:5]], [*first, *second[5:]], second, ids[6:9]]
    end = len(first)
    try:
        with evaluating(model):
            prefix = CachedRows.empty(model, 1)
            prefix.read([first])
            own, others = prefix.repeated(3), CachedRows.empty(model, 2)
            own.read([text[end:-1] for text in texts[:3]])
            others.read([text[:-2] for text in texts[3:]])
            others.read([text[-2:-1] for text in texts[3:]])
            rows = joined([own.kept([2, 0]), others])
            found = rows.read([texts[place][-1:] for place in (2, 0, 3, 4)])
            rows = rows.kept([3, 0])
            more = rows.read([second[:1], second[1:2]])
            expected = [model(torch.tensor([text], device=rows.mask.device), use_cache=False).logits[0, -1]
                        for text in (texts[2], texts[0], texts[3], texts[4], [*texts[4], second[0]],
                                     [*texts[2], second[1]])]  # fmt: skip
    except Exception as error:
        log.debug("rows are not decoded together: %s", error)
        return 0
    if not alike(torch.cat([found, more]), torch.stack(expected), rounding_level(model)):
        return 0
    windows = (layer.get_max_length() for layer in rows.cache.layers)
    return min((window for window in windows if window != -1), default=math.inf)
