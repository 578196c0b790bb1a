"""Work with models, a tokenizer and random numbers of the caller, who gets all of them back as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.model.short_pass import evaluating
from pipeline.model.sources.base import changed_by_use, plain_generation, restore_use

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@contextmanager
def borrowed(models: Sequence[PreTrainedModel], tokenizer: PreTrainedTokenizerBase | None, seed: int) -> Iterator[None]:
    """Make models, tokenizer and random numbers within the block what they are in a job.

    Models are in evaluation mode and generate without settings of their own, the tokenizer has a padding token, and
    random numbers start from ``seed``. Raises ValueError for a tokenizer that has no token to pad with.
    """
    with ExitStack() as stack:
        stack.enter_context(seeded(seed))
        for model in models:
            stack.enter_context(_evaluated(model))
        if tokenizer is not None:
            stack.enter_context(_padding(tokenizer))
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start the random numbers of Python, NumPy and torch from a seed within the block."""
    python, numpy = random.getstate(), np.random.get_state()
    # To seed GPUs that nobody uses would start CUDA, or leave the seed behind for when it starts.
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=gpus):
        try:
            random.seed(seed)
            np.random.seed(seed)
            if gpus:
                torch.manual_seed(seed)
            else:
                torch.default_generator.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _evaluated(model: PreTrainedModel) -> Iterator[None]:
    shipped = getattr(model, "generation_config", None)
    with evaluating(model):
        if shipped is not None:
            model.generation_config = plain_generation(shipped)
        try:
            yield
        finally:
            if shipped is not None:
                model.generation_config = shipped


@contextmanager
def _padding(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    use, side = changed_by_use(tokenizer), tokenizer.padding_side
    try:
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise ValueError(
                    "the tokenizer has neither a padding token nor an end-of-text token; set tokenizer.pad_token"
                )
            tokenizer.pad_token = tokenizer.eos_token
        yield
    finally:
        restore_use(tokenizer, use)
        tokenizer.padding_side = side
