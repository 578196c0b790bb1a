"""The contract of a calibration set: documents in, token sequences out; and how these are batched, stored and named.

A source defines ``documents()``; everything else is here. Sequences are never padded: ``batches`` puts only sequences
of equal length together.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from safetensors.torch import load_file, save_file

from pipeline.config.component import Component, speed_only
from pipeline.config.types import Positive, Seed
from pipeline.model.special_tokens import end_of_text, opening
from pipeline.model.trajectory import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS_FILE = "tokens.safetensors"
# Documents per call of the tokenizer: enough to keep it busy, few enough to stop soon after the text suffices.
_CHUNK = 64
# A model predicts each token from those before it, so a sequence of one token says nothing.
_SHORTEST = 2


@dataclass(frozen=True)
class CalibrationSet(Component):
    """``sequences`` token sequences from shuffled documents; equal ``seed`` gives equal sequences.

    ``packing`` joins the documents by the token that ends a document and cuts the result into sequences of exactly
    ``length`` tokens. Without it each sequence is one document cut to ``length`` tokens, and shorter documents stay
    shorter. A begin-of-text token that the tokenizer puts in front of text starts each sequence and counts in its
    ``length``: see `pipeline.model.special_tokens`. ``batch_size`` sequences go through the model at a time.
    """

    sequences: Positive = 128
    length: Positive = 256
    packing: bool = True
    seed: Seed = 0
    batch_size: Positive = speed_only(16)

    version: ClassVar[int] = 2

    # Documents are shuffled through a buffer of this size, which reads a stream only as far as needed. None shuffles
    # all of them.
    buffer: ClassVar[int | None] = None
    # Whether the documents are prompts for the dense model to continue.
    generated: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Name with the number of sequences and their length, as settings and captions show it."""
        count = len(self.prompts()) if self.generated else self.sequences
        return f"{self.name} {count}×{self.length}"

    def documents(self) -> Iterable[str]:
        """Return the texts of the source in a fixed order; blank ones are skipped later.

        Raises ValueError in plain words.
        """
        raise TypeError(f"calibration {type(self).__name__} does not define documents()")

    def prompts(self) -> list[str]:
        """Return the prompts of a ``generated`` set for the dense model to continue.

        Raises ValueError if there are too few.
        """
        raise TypeError(f"calibration {type(self).__name__} does not define prompts()")

    def continued(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Trajectory:
        """Return the dense model's continuations of the prompts."""
        raise TypeError(f"calibration {type(self).__name__} does not define continued()")

    def tokenize(self, tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
        """Return ``sequences`` int64 tensors, each (length,) with packing and (2..length,) without it.

        Reads no more documents than needed. Raises ValueError that says how much text is missing.
        """
        texts = (text for text in _shuffled(self.documents(), self.seed, self.buffer) if text.strip())
        tokens, begin = _tokens(texts, tokenizer), opening(tokenizer)
        if self.length <= len(begin):
            raise ValueError(
                f"calibration.length={self.length} leaves no room for text after the begin-of-text token; give at "
                f"least {len(begin) + 1}"
            )
        room = self.length - len(begin)
        rows = self._packed(tokens, room, end_of_text(tokenizer)) if self.packing else self._unpacked(tokens, room)
        return [torch.cat([torch.tensor(begin, dtype=torch.int64), row]) for row in rows]

    def _packed(self, documents: Iterator[list[int]], room: int, separator: int | None) -> list[torch.Tensor]:
        needed, found = self.sequences * room, 0
        pieces: list[torch.Tensor] = []
        for tokens in documents:
            if separator is not None:
                tokens.append(separator)
            pieces.append(torch.tensor(tokens, dtype=torch.int64))
            found += len(tokens)
            if found >= needed:
                return list(torch.cat(pieces)[:needed].view(self.sequences, room))
        raise ValueError(
            f"calibration {self.name} has {found} tokens, but {self.sequences} sequences of {room} "
            f"need {needed}: {needed - found} are missing. Lower calibration.sequences or calibration.length"
        )

    def _unpacked(self, documents: Iterator[list[int]], room: int) -> list[torch.Tensor]:
        if self.length < _SHORTEST:
            raise ValueError(
                f"calibration.length={self.length} is too short without packing: give at least {_SHORTEST}, or set "
                "calibration.packing=true"
            )
        long_enough = (tokens for tokens in documents if len(tokens) >= _SHORTEST)
        chosen = itertools.islice(long_enough, self.sequences)
        found = [torch.tensor(tokens[:room], dtype=torch.int64) for tokens in chosen]
        if len(found) == self.sequences:
            return found
        raise ValueError(
            f"calibration {self.name} has {len(found)} documents of at least {_SHORTEST} tokens, but {self.sequences} "
            f"sequences without packing need one each: {self.sequences - len(found)} are missing. "
            "Lower calibration.sequences, or set calibration.packing=true"
        )


def _shuffled(documents: Iterable[str], seed: int, buffer: int | None) -> Iterator[str]:
    """Yield all documents in random order; at most ``buffer`` are held and read ahead, None holds all."""
    chance, stream = random.Random(seed), iter(documents)
    held = list(itertools.islice(stream, buffer))
    for newest in stream:
        place = chance.randrange(len(held))
        chosen, held[place] = held[place], newest
        yield chosen
    chance.shuffle(held)
    yield from held


def _tokens(texts: Iterator[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Yield the token ids of each text, without special tokens."""
    while chunk := list(itertools.islice(texts, _CHUNK)):
        # Not verbose: a text may be longer than the model's context, since it is cut afterwards.
        yield from tokenizer(
            chunk,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        ).input_ids


def batches(sequences: Sequence[torch.Tensor], size: int) -> list[torch.Tensor]:
    """Group sequences of equal length into (up to ``size``, tokens) int64 batches: longest first, else in order."""
    by_length: dict[int, list[torch.Tensor]] = {}
    for sequence in sequences:
        by_length.setdefault(len(sequence), []).append(sequence)
    return [
        torch.stack(group[start : start + size])
        for _, group in sorted(by_length.items(), reverse=True)
        for start in range(0, len(group), size)
    ]


def save(sequences: Sequence[torch.Tensor], folder: Path) -> None:
    """Write int64 sequences of any lengths into ``folder``; ``load`` reads them. Token ids fit into 31 bits."""
    flat = torch.cat([torch.empty(0, dtype=torch.int64), *sequences]).to(torch.int32)
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    save_file({"tokens": flat, "lengths": lengths}, folder / TOKENS_FILE)


def load(folder: Path) -> list[torch.Tensor]:
    """Return the int64 sequences that ``save`` wrote."""
    stored = load_file(folder / TOKENS_FILE)
    return list(stored["tokens"].to(torch.int64).split(stored["lengths"].tolist()))
