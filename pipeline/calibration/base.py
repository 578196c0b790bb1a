"""The contract of a calibration set: documents in, packed token sequences out."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.component import Component, Positive, speed_only


@dataclass(frozen=True)
class CalibrationSet(Component):
    """``sequences`` of ``length`` tokens, packed from shuffled documents so that there is no padding.

    ``batch_size`` sequences go through the model at a time.
    """

    sequences: Positive = 128
    length: Positive = 256
    seed: int = 0
    batch_size: Positive = speed_only(16)

    def documents(self) -> list[str]:
        """All texts of the source, in a fixed order."""
        raise TypeError(f"calibration {type(self).__name__} does not define documents()")

    def batches(self, tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
        """Token batches (up to batch_size, length) int64. Raises ValueError that says how much text is missing."""
        documents = self.documents()
        random.Random(self.seed).shuffle(documents)
        needed = self.sequences * self.length
        separator = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        tokens: list[int] = []
        for document in documents:
            tokens += tokenizer(document, add_special_tokens=False).input_ids + separator
            if len(tokens) >= needed:
                break
        if len(tokens) < needed:
            raise ValueError(
                f"calibration {self.name} has {len(tokens)} tokens, but {self.sequences} sequences of {self.length} "
                f"need {needed}: {needed - len(tokens)} are missing. Lower calibration.sequences or calibration.length"
            )
        packed = torch.tensor(tokens[:needed], dtype=torch.int64).view(self.sequences, self.length)
        return list(packed.split(self.batch_size))
