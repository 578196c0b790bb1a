"""Embeddings of texts: pooled final hidden states of the model under evaluation, whatever its architecture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import torch

from pipeline.common.terminal import progress
from pipeline.evaluate.retrieval.recipe import Recipe
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values
from pipeline.model.positions import Positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_T = TypeVar("_T")
# Batches whose texts are sorted by length together: enough to save padding, few enough to hold in memory.
_SORTED_TOGETHER = 32


class Embedder:
    """Turns texts into unit vectors, ``batch_size`` texts of similar length at a time."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, batch_size: int = 32
    ) -> None:
        self.decoder = Decoder(model)
        self._positions = Positions.of(model)
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.batch_size = batch_size
        self.max_length = min(recipe.max_length, self.decoder.positions or recipe.max_length)

    def queries(self, texts: list[str]) -> torch.Tensor:
        """Compute embeddings (N, D) of queries, float32, of length 1, on the model's device.

        Raises ValueError if the model's hidden states are not finite.
        """
        rows: list[torch.Tensor] = [torch.empty(0)] * len(texts)
        for places, embeddings in self._stream(
            (self.recipe.query_prefix + text for text in texts), "queries", len(texts)
        ):
            for place, embedding in zip(places, embeddings, strict=True):
                rows[place] = embedding
        return torch.stack(rows)

    def documents(self, texts: Iterable[str], total: int) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Compute embeddings of documents, batch by batch: their places among ``texts``, and (B, D) as of queries.

        ``total`` is the number of texts, for the progress bar. Places come in any order, each once.
        Raises ValueError if the model's hidden states are not finite.
        """
        return self._stream((self.recipe.document_prefix + text for text in texts), "documents", total)

    def _stream(self, texts: Iterable[str], what: str, total: int) -> Iterator[tuple[list[int], torch.Tensor]]:
        batches = math.ceil(total / self.batch_size)
        for places, ids in progress(self._batches(texts), what, batches):
            yield places, self._embed(ids)

    def _batches(self, texts: Iterable[str]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Yield places and token ids of texts of similar length, the longest of a group first."""
        for group in _groups(enumerate(texts), self.batch_size * _SORTED_TOGETHER):
            encoded = list(zip((place for place, _ in group), self._encode([text for _, text in group]), strict=True))
            encoded.sort(key=lambda pair: -len(pair[1]))
            for run in self._positions.runs([len(ids) for _, ids in encoded], self.batch_size):
                yield [place for place, _ in encoded[run]], [ids for _, ids in encoded[run]]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Return token ids with the tokenizer's special tokens, at least one per text."""
        rows = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        end = self.tokenizer.eos_token_id
        if self.recipe.append_eos:
            if end is None:
                raise ValueError("the tokenizer has no end-of-text token; set append_eos: false in model.embedding")
            # Some tokenizers add it themselves.
            rows = [ids if ids[-1:] == [end] else [*ids[: self.max_length - 1], end] for ids in rows]
        filler = next((token for token in (end, self.tokenizer.pad_token_id) if token is not None), 0)
        return [ids or [filler] for ids in rows]

    @torch.inference_mode()
    def _embed(self, rows: list[list[int]]) -> torch.Tensor:
        """Compute unit vectors (B, D), float32, of token ids."""
        width, device = max(map(len, rows)), self.decoder.device
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(width, device=device) < lengths[:, None]
        states = self.decoder.base(ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
        pooled = pool(states.to(device), mask, self.recipe.pooling)
        check_values(pooled, "embeddings of texts")
        return torch.nn.functional.normalize(pooled, dim=-1)


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool hidden states (B, T, D) where ``mask`` (B, T) is true to (B, D), float32; texts start at the left."""
    if pooling == "cls":
        return states[:, 0].float()
    if pooling == "last":
        rows = torch.arange(len(states), device=states.device)
        return states[rows, mask.sum(1) - 1].float()
    # Masked out rather than multiplied by 0: the states at padding may be anything.
    return states.float().masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)


def _groups(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield consecutive groups of ``size`` items, the last one possibly smaller."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
