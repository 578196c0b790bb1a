"""How much memory measuring takes beside the weights: the states, and the logits of one block of positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipeline.capture.room import kept_states
from pipeline.measure.measures import KEPT, TILE, block_entries
from pipeline.model.memory import Need

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Temporaries of a tile, in tiles.
_TILES = 7


def measuring(model: PreTrainedModel, positions: int, changed: bool) -> Need:
    """Count what measuring the states of N positions takes; ``model`` is a `skeleton_of` in the dtype of capturing.

    ``changed`` says whether there are counterparts. Logits and their change are held for one block of positions.
    """
    kept = kept_states(model, positions)
    states = kept.residual + kept.final + (kept.after if changed else 0)
    vocabulary, hidden = model.get_input_embeddings().weight.shape
    width = torch.promote_types(model.dtype, torch.float32).itemsize
    head = vocabulary * hidden * width if width != model.dtype.itemsize else 0
    return Need(head + logits_bytes(vocabulary, positions, width), states)


def logits_bytes(vocabulary: int, positions: int, width: int) -> int:
    """Return the bytes of logits, of their change and of what is computed from them, of ``width`` bytes each."""
    block = block_entries(vocabulary, positions)
    return max(KEPT, (2 * block + _TILES * min(block, TILE)) * width)
