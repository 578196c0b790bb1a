"""Log-likelihoods from a prefix tree: rows whose tokens attend to their own beginning, at their own positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.evaluate.answer import Reader, answers_of
from pipeline.evaluate.prefix_tree import Branch, Item, Row, planned, width
from pipeline.model.cached_rows import rows_of
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Rows are at least this wide where items are short: wide enough to be filled, narrow enough for attention.
_WIDTH = 768
# Attention takes as long as all the rest where rows are so many times as wide as the states; about, on a processor.
_ATTENTION = 2
# Most entries of the logits of a pass, and of its mask.
_LOGITS, _MASK = 2**28, 2**26


class TreePass:
    """Runs the items of a prefix tree through a model, at most ``batch_size`` times the longest item in a pass.

    ``read`` takes what is wanted from the logits.
    """

    def __init__(self, model: PreTrainedModel, batch_size: int, read: Reader = answers_of) -> None:
        self._model, self._size, self._device, self._read = model, batch_size, Decoder(model).device, read

    def plan(self, items: Sequence[Item], widest: float) -> tuple[Branch, int]:
        """Return the tree of items, in rows of at most ``widest`` tokens with their cache, and the tokens of a pass."""
        longest = max(len(item.tokens) for item in items)
        vocabulary = self._model.get_output_embeddings().weight.shape[0]
        budget = max(longest, min(self._size * longest, _LOGITS // vocabulary))
        capacity = int(min(max(longest, _WIDTH), budget, widest))
        hidden = self._model.get_input_embeddings().weight.shape[1]
        return planned(items, capacity, budget, _MASK, _ATTENTION * hidden), budget

    def answers(self, root: Branch, budget: int) -> Iterator[list[tuple[int, Any]]]:
        """Yield what is read of continuations, with their indices, pass by pass."""
        waiting: list[tuple[Branch, int, Any]] = [(root, 0, None)]
        while waiting:
            branch, before, cache = waiting.pop()
            if branch.tokens:
                cache = self._held(branch, before, cache)
            for batch in branch.batches(budget, _MASK):
                yield list(self._scored(batch, branch, cache))
            waiting += [(each, len(branch.tokens), cache) for each in branch.branches]

    def _held(self, branch: Branch, before: int, cache: Any) -> Any:
        """Return the cache of a branch: that of its parent, of ``before`` tokens, and what the branch adds."""
        ids = torch.tensor([branch.tokens[before:]], device=self._device)
        places = torch.arange(before, len(branch.tokens), device=self._device)[None]
        parent = None if cache is None else rows_of(cache, torch.zeros(1, dtype=torch.long, device=self._device))
        found = self._model(ids, position_ids=places, past_key_values=parent, use_cache=True, logits_to_keep=1)
        return found.past_key_values

    def _scored(self, batch: list[Row], branch: Branch, cache: Any) -> Iterator[tuple[int, Any]]:
        layout = _Layout(batch, len(branch.tokens))
        seen = torch.from_numpy(layout.seen).to(self._device)[:, None]
        mask = torch.zeros(seen.shape, dtype=self._model.dtype, device=self._device)
        mask.masked_fill_(~seen, torch.finfo(mask.dtype).min)
        held = (
            {} if cache is None else {"past_key_values": rows_of(cache, seen.new_zeros(len(batch), dtype=torch.long))}
        )
        wanted = torch.from_numpy(layout.predicting).to(self._device)
        with _predicting(self._model, wanted) as gathered:
            logits = self._model(
                torch.from_numpy(layout.ids).to(self._device),
                position_ids=torch.from_numpy(layout.places).to(self._device),
                attention_mask=mask,
                use_cache=cache is not None,
                **held,
            ).logits
        logits = logits.flatten(0, 1)
        # The output projection may have been passed by.
        logits = logits if gathered else logits[wanted]
        check_values(logits, "log-likelihoods")
        found = self._read(logits[layout.order], [continuation for _, continuation in layout.asked])
        yield from zip((index for index, _ in layout.asked), found, strict=True)


class _Layout:
    """Arrays of a batch of R rows, padded to T tokens, that go on from a cache of ``held`` tokens.

    ``ids`` and ``places`` are (R, T), ``seen`` is (R, T, held + T): which tokens each one attends to. ``predicting``
    are the places of the tokens, in all R · T, whose predictions are asked for; ``asked`` are the continuations with
    their indices, and ``order`` the rows among ``predicting`` that predict their tokens, one after the other.
    """

    def __init__(self, batch: list[Row], held: int) -> None:
        rows, wide = len(batch), max(map(width, batch))
        self.ids, self.places = np.zeros((rows, wide), np.int64), np.zeros((rows, wide), np.int64)
        self.seen = np.zeros((rows, wide, held + wide), bool)
        # Padding attends to itself: nothing to attend to would be no number.
        self.seen[:, np.arange(wide), held + np.arange(wide)] = True
        self.asked: list[tuple[int, Sequence[int]]] = []
        predicting: list[np.ndarray[Any, Any]] = []
        for number, row in enumerate(batch):
            self._place(number, row, held, predicting)
        flat = np.concatenate(predicting)
        self.predicting, self.order = np.unique(flat, return_inverse=True)

    def _place(self, number: int, row: Row, held: int, predicting: list[np.ndarray[Any, Any]]) -> None:
        path, used = np.zeros(0, np.int64), 0
        for placed in row:
            item, kept = placed.item, placed.shared - held
            own = np.arange(used, used + len(item.tokens) - placed.shared)
            path, used = np.concatenate([path[:kept], own]), used + len(own)
            depth = np.arange(placed.shared, len(item.tokens))
            self.ids[number, own], self.places[number, own] = item.tokens[placed.shared :], depth
            self.seen[number, own, :held] = True
            self.seen[number, own[:, None], held + path] = np.arange(held, len(item.tokens)) <= depth[:, None]
            for index, continuation in item.asked:
                first = len(item.tokens) - len(continuation) - held
                predicting.append(number * self.ids.shape[1] + path[first : first + len(continuation)])
                self.asked.append((index, continuation))


@contextmanager
def _predicting(model: PreTrainedModel, wanted: torch.Tensor) -> Iterator[list[bool]]:
    """Apply the output projection to the ``wanted`` tokens of all rows only, within the block; say whether it was."""
    gathered: list[bool] = []

    def select(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        gathered.append(True)
        return (args[0].flatten(0, 1)[wanted][None], *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield gathered
    finally:
        hook.remove()
