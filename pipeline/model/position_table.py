"""The table of learned positions: how many of its rows tokens take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def positions_of(model: PreTrainedModel) -> int | None:
    """Return the number of tokens that a sequence may have, or None if the configuration promises none.

    A table of positions with a row for padding is counted from behind that row (RoBERTa), so that the rows up to it
    are no positions of tokens.
    """
    most = getattr(model.config, "max_position_embeddings", None)
    if most is None:
        return None
    words = model.get_input_embeddings()
    padding = [
        row
        for module in model.modules()
        if module is not words
        and isinstance(row := getattr(module, "padding_idx", None), int)
        and isinstance(table := getattr(module, "weight", None), torch.Tensor)
        and len(table) == most
    ]
    return int(most) - max((row + 1 for row in padding), default=0)
