"""Changed weights of a model in memory, apart from the model: masks as bits, everything on the processor."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING

from pipeline.prune.decision import Change, pack, unpack

if TYPE_CHECKING:
    import torch


class PackedChanges(MutableMapping[int, Change]):
    """Changes by block. Each access unpacks the masks of one block."""

    def __init__(self) -> None:
        self._packed: dict[int, Change] = {}
        self._shapes: dict[int, dict[str, tuple[int, ...]]] = {}

    def __getitem__(self, layer: int) -> Change:
        packed, shapes = self._packed[layer], self._shapes[layer]
        masks = {name: unpack(bits, shapes[name]) for name, bits in packed.masks.items()}
        return Change(masks, packed.weights, packed.notes)

    def __setitem__(self, layer: int, change: Change) -> None:
        self._shapes[layer] = {name: tuple(mask.shape) for name, mask in change.masks.items()}
        masks: dict[str, torch.Tensor] = {name: pack(mask.cpu()) for name, mask in change.masks.items()}
        self._packed[layer] = Change(masks, {name: w.cpu() for name, w in change.weights.items()}, change.notes)

    def __delitem__(self, layer: int) -> None:
        del self._packed[layer], self._shapes[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._packed))

    def __len__(self) -> int:
        return len(self._packed)
