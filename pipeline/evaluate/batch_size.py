"""``task.batch_size=auto``: how many requests a pass should have, by throughput and memory of the dense model."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import torch

from pipeline.common.heartbeat import in_words
from pipeline.model.activations import memory_budget
from pipeline.model.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
# Sizes are doubled up to this one.
_MOST = 256
# A size counts as faster with so many times the tokens a second.
_FASTER = 1.1
# Passes that are timed: the fastest counts, so that other work on the machine matters less.
_PASSES = 2
# Values that a block holds for each token at a time, in multiples of the states' width.
_HELD = 16


def found_size(model: PreTrainedModel, longest: int) -> int:
    """Find the number of requests in a pass: doubled while this makes tokens pass faster, and memory allows.

    Requests have at most ``longest`` tokens. Sizes whose pass is estimated to need more than a quarter of the free
    memory are not tried. Where a GPU runs out of memory nevertheless, the search ends with half the size.
    """
    device = Decoder(model).device
    ids = torch.arange(longest, device=device).remainder(model.get_input_embeddings().weight.shape[0])
    best, chosen, size = 0.0, 1, 1
    started = time.perf_counter()
    while size <= _MOST and (size == 1 or size * longest * bytes_per_token(model) <= memory_budget(device)):
        try:
            speed = size * longest / min(_seconds(model, ids.expand(size, -1)) for _ in range(_PASSES))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return max(1, min(chosen, size // 2))
        if speed > _FASTER * best:
            best, chosen = speed, size
        elif size > 2 * chosen:
            break
        size *= 2
    log.info("  task.batch_size=auto is %d here (found in %s)", chosen, in_words(time.perf_counter() - started))
    return chosen


@torch.inference_mode()
def _seconds(model: PreTrainedModel, ids: torch.Tensor) -> float:
    start = time.perf_counter()
    model(ids, use_cache=Decoder(model).uses_cache, logits_to_keep=1)
    if ids.device.type == "cuda":
        torch.cuda.synchronize(ids.device)
    return time.perf_counter() - start


def bytes_per_token(model: PreTrainedModel) -> int:
    """Estimate the bytes that a pass needs for each token: logits, with their float32 copy, states, keys and values."""
    states = Decoder(model)
    vocabulary, hidden = states.head.weight.shape
    width = torch.finfo(model.dtype).bits // 8
    return vocabulary * (width + 4) + hidden * width * (_HELD + 2 * len(states.blocks))
