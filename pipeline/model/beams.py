"""The best beams of a prompt, best first, by transformers' own beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    row: Sequence[int],
    count: int,
    length: int,
    pad_token_id: int,
    is_done: Callable[[list[int]], bool],
    **settings: Any,
) -> list[list[int]]:
    """Generate the ``count`` best continuations of token ids, at most ``length`` tokens each, the likeliest first.

    A beam ends with an end-of-text token, or where ``is_done`` holds of its new tokens. ``settings`` go to
    ``model.generate`` and hold ``num_beams``, at least ``count``. Continuations are padded to the longest. Raises
    ValueError for logits that are not finite.
    """
    ids = torch.tensor([list(row)], device=Decoder(model).device)
    plain = as_read(model).generate
    with checked_logits(model, "dtype"):
        whole = model.generate(
            ids,
            **({"attention_mask": torch.ones_like(ids)} if plain else {}),
            stopping_criteria=StoppingCriteriaList([_Done(len(row), is_done)]),
            num_return_sequences=count,
            max_new_tokens=length,
            pad_token_id=pad_token_id,
            use_cache=plain and Decoder(model).uses_cache,
            **settings,
        )
    return [found[len(row) :].tolist() for found in whole]


class _Done(StoppingCriteria):
    """Ends each beam by its own new tokens; that of lm-eval keeps what it saw of a row, and beams change rows."""

    def __init__(self, start: int, is_done: Callable[[list[int]], bool]) -> None:
        self._start, self._is_done = start, is_done

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        done = [self._is_done(row[self._start :]) for row in input_ids.tolist()]
        return torch.tensor(done, device=input_ids.device)
