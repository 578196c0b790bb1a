"""What a pruner decides: the dropped blocks and sublayers, the masked weights, and the scores behind them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_JSON, _MASKS = "decision.json", "masks.safetensors"


@dataclass(frozen=True)
class Decision:
    """Storable outcome of pruning; enough to rebuild the pruned model from the dense one.

    ``blocks``, ``attention`` and ``mlp`` are dropped layer numbers of the dense model. ``masks`` maps parameter
    names to boolean tensors of the parameter's shape, True where the weight is pruned. ``scores`` are rows with
    at least ``layer``, ``sublayer`` and ``score``. ``achieved`` is the share of decoder-block parameters gone.
    """

    blocks: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    mlp: tuple[int, ...] = ()
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    achieved: float = 0.0

    @property
    def drops(self) -> bool:
        """Whether whole units are removed, rather than single weights."""
        return bool(self.blocks or self.attention or self.mlp)

    @property
    def is_empty(self) -> bool:
        return not self.drops and not any(bool(mask.any()) for mask in self.masks.values())

    def save(self, folder: Path) -> None:
        facts = {
            "blocks": self.blocks,
            "attention": self.attention,
            "mlp": self.mlp,
            "achieved": self.achieved,
            "scores": self.scores,
            "masks": {name: list(mask.shape) for name, mask in self.masks.items()},
        }
        (folder / _JSON).write_text(json.dumps(facts, indent=1) + "\n")
        if self.masks:
            save_file({name: pack(mask) for name, mask in self.masks.items()}, folder / _MASKS)

    @classmethod
    def load(cls, folder: Path) -> Decision:
        facts = json.loads((folder / _JSON).read_text())
        packed = load_file(folder / _MASKS) if facts["masks"] else {}
        return cls(
            blocks=tuple(facts["blocks"]),
            attention=tuple(facts["attention"]),
            mlp=tuple(facts["mlp"]),
            masks={name: unpack(packed[name], tuple(shape)) for name, shape in facts["masks"].items()},
            scores=facts["scores"],
            achieved=facts["achieved"],
        )


def pack(mask: torch.Tensor) -> torch.Tensor:
    """Boolean tensor of any shape to bytes, eight entries each, lowest bit first."""
    flat = mask.flatten().to(torch.uint8)
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (flat << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Inverse of ``pack``."""
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[: math.prod(shape)].view(shape).bool()
