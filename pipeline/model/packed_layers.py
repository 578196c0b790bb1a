"""Weights outside of the blocks that hold a part for each block side by side: embeddings per layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Field of a configuration with the width of one block's part.
_WIDTH = "hidden_size_per_layer_input"
# Attributes of embeddings and linear layers with the size of a dimension of their weight.
_SIZES = {nn.Embedding: ("num_embeddings", "embedding_dim"), nn.Linear: ("out_features", "in_features")}


def keep_packed(model: PreTrainedModel, blocks_name: str, kept: Sequence[int], count: int) -> None:
    """Keep the parts of the blocks ``kept``, of ``count``, in weights outside of the blocks, in place."""
    width = getattr(model.config.get_text_config(decoder=True), _WIDTH, None)
    if not width:
        return
    parts = torch.cat([torch.arange(layer * width, (layer + 1) * width) for layer in kept])
    for path, module in model.named_modules():
        kind = next((kind for kind in _SIZES if isinstance(module, kind)), None)
        if kind is None or path.startswith(f"{blocks_name}."):
            continue
        for dimension, size in enumerate(module.weight.shape):
            if size == count * width:
                module.weight.data = module.weight.data.index_select(dimension, parts.to(module.weight.device))
                setattr(module, _SIZES[kind][dimension], len(parts))
