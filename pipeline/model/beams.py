"""The best beams of prompts, best first, by transformers' own beam search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from pipeline.model.as_read import as_read
from pipeline.model.decoder import Decoder
from pipeline.model.finite import checked_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def best_beams(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    count: int,
    length: int,
    pad_token_id: int,
    is_done: Callable[[list[int]], bool],
    together: int = 1,
    **settings: Any,
) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield the place of each row of token ids and its ``count`` best continuations, the likeliest first.

    They have at most ``length`` tokens. A beam ends with an end-of-text token, or where ``is_done`` holds of its new
    tokens. Rows of equal length are continued ``together``, so many at a time, where the model reads rows of a batch as
    it reads each alone. ``settings`` go to ``model.generate`` and hold ``num_beams``, at least ``count``. Continuations
    are padded to the longest of a batch. Raises ValueError for logits that are not finite.
    """
    how = as_read(model)
    for places in _alike(rows, together if how.generate and how.batched else 1):
        ids = torch.tensor([list(rows[place]) for place in places], device=Decoder(model).device)
        width = ids.shape[1]
        with checked_logits(model, "dtype"):
            whole = model.generate(
                ids,
                **({"attention_mask": torch.ones_like(ids)} if how.generate else {}),
                stopping_criteria=StoppingCriteriaList([_Done(width, is_done)]),
                num_return_sequences=count,
                max_new_tokens=length,
                pad_token_id=pad_token_id,
                use_cache=how.generate and Decoder(model).uses_cache,
                **settings,
            )
        for place, beams in zip(places, whole.unflatten(0, (-1, count)), strict=True):
            yield place, beams[:, width:].tolist()


def _alike(rows: Sequence[Sequence[int]], together: int) -> Iterator[list[int]]:
    """Yield the places of rows of equal length, at most so many at a time."""
    by_length: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(place)
    for places in by_length.values():
        yield from (places[start : start + together] for start in range(0, len(places), together))


class _Done(StoppingCriteria):
    """Ends each beam by its own new tokens; that of lm-eval keeps what it saw of a row, and beams change rows."""

    def __init__(self, start: int, is_done: Callable[[list[int]], bool]) -> None:
        self._start, self._is_done = start, is_done

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        done = [self._is_done(row[self._start :]) for row in input_ids.tolist()]
        return torch.tensor(done, device=input_ids.device)
