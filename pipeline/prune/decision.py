"""Decisions of pruners: the dropped blocks and sublayers, the changed weights, and the scores behind them."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from pipeline.common.files import replacing
from pipeline.model.structure import ATTENTION, MLP, SUBLAYERS
from pipeline.store.table_names import DECISION

log = logging.getLogger(__name__)
_MASK, _WEIGHT, _SHAPE = "mask:", "weight:", "shape:"


@dataclass(frozen=True)
class Change:
    """New weights of one block. Keys are parameter names, tensors have the parameter's shape.

    ``masks`` are boolean, True where the weight is zero afterwards. ``weights`` replace whole parameters. ``notes``
    are facts about how each matrix was treated, as rows with ``layer``, ``sublayer`` (the matrix) and further columns.
    """

    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def zeros(self) -> int:
        """Number of masked weights."""
        return sum(int(mask.sum()) for mask in self.masks.values())

    def save(self, path: Path) -> None:
        """Write a safetensors file, with masks as bits. Other processes never see a partial file."""
        tensors = {f"{_WEIGHT}{name}": value.contiguous() for name, value in self.weights.items()}
        for name, mask in self.masks.items():
            tensors[f"{_MASK}{name}"] = pack(mask)
            tensors[f"{_SHAPE}{name}"] = torch.tensor(mask.shape)
        # One entry: several would be written in any order, and equal changes should give equal bytes.
        facts = json.dumps({"notes": self.notes, "zeros": self.zeros})
        with replacing(path) as scratch:
            save_file(tensors, scratch, metadata={"facts": facts})

    @classmethod
    def load(cls, path: Path) -> Change:
        tensors = load_file(path)
        masks = {
            name.removeprefix(_MASK): unpack(packed, tuple(tensors[_SHAPE + name.removeprefix(_MASK)].tolist()))
            for name, packed in tensors.items()
            if name.startswith(_MASK)
        }
        weights = {n.removeprefix(_WEIGHT): value for n, value in tensors.items() if n.startswith(_WEIGHT)}
        return cls(masks, weights, change_facts(path)[0])


def change_facts(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return notes and number of masked weights of a stored change, without reading its tensors."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
    return facts["notes"], facts["zeros"]


class ChangeFiles(MutableMapping[int, Change]):
    """Changes by block, one file each: at most one block's changes are in memory.

    ``kept`` is a second folder that outlives a killed run: changes are written there too, and those found there are
    used. It is a convenience that may fail or vanish (another process may finish the same work first) without harm.
    """

    def __init__(self, folder: Path, kept: Path | None = None) -> None:
        self.folder, self.kept = folder, kept
        for path in sorted(kept.glob("block-*.safetensors")) if kept else ():
            try:
                _share(path, folder / path.name)
                change_facts(folder / path.name)
            except (OSError, SafetensorError, KeyError, ValueError) as error:
                log.warning(
                    "the intermediate result %s of an interrupted run is unusable (%s): recomputing it", path, error
                )
                (folder / path.name).unlink(missing_ok=True)

    def _path(self, layer: int) -> Path:
        return self.folder / f"block-{layer:03d}.safetensors"

    def __getitem__(self, layer: int) -> Change:
        if not self._path(layer).is_file():
            raise KeyError(layer)
        return Change.load(self._path(layer))

    def __setitem__(self, layer: int, change: Change) -> None:
        path = self._path(layer)
        change.save(path)
        if self.kept:
            try:
                _share(path, self.kept / path.name)
            except OSError as error:
                log.warning("block %d cannot be saved and would be recomputed after an interruption: %s", layer, error)

    def __delitem__(self, layer: int) -> None:
        self._path(layer).unlink()

    def __iter__(self) -> Iterator[int]:
        return (int(path.stem.removeprefix("block-")) for path in sorted(self.folder.glob("block-*.safetensors")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def facts(self, layer: int) -> tuple[list[dict[str, Any]], int]:
        """Return notes and number of masked weights of a block."""
        return change_facts(self._path(layer))


def facts_of(changes: Mapping[int, Change], layer: int) -> tuple[list[dict[str, Any]], int]:
    """Return notes and number of masked weights of a block, read as cheaply as the changes allow."""
    if isinstance(changes, ChangeFiles):
        return changes.facts(layer)
    return changes[layer].notes, changes[layer].zeros


def _share(source: Path, target: Path) -> None:
    """Link a file to a second name, or copy it where the file system has no hard links; never leaves a partial file."""
    # Where both names are of one file already, renaming does nothing and keeps both; the scratch name is then removed.
    with replacing(target) as scratch:
        try:
            os.link(source, scratch)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, scratch)


@dataclass(frozen=True)
class Decision:
    """Storable outcome of pruning; enough to rebuild the pruned model from the dense one.

    ``blocks``, ``attention`` and ``mlp`` are dropped layer numbers of the dense model. ``changes`` maps layer numbers
    to the changed weights of that block; those of dropped units have no effect. ``scores`` are rows with at least
    ``layer``, ``sublayer`` and ``score``. ``achieved`` is the share of decoder-block parameters removed or zeroed,
    ``achieved_by_layer`` the same for each block; ``parameters`` counts those left of the whole model's
    ``dense_parameters``: tied ones once, zeroed ones not. ``mixers`` are the layers of the dense model whose
    ``attention`` is another mixer of tokens. ``forward_tokens`` went through the model for the decision, from nothing;
    None if that is not known, as after an interruption. It is no part of the stored decision.
    """

    blocks: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    mlp: tuple[int, ...] = ()
    changes: Mapping[int, Change] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    achieved: float = 0.0
    achieved_by_layer: tuple[float, ...] = ()
    parameters: int = 0
    dense_parameters: int = 0
    mixers: tuple[int, ...] = ()
    forward_tokens: float | None = None

    @property
    def drops(self) -> bool:
        """Whether whole units are removed."""
        return bool(self.blocks or self.attention or self.mlp)

    @property
    def dropped(self) -> set[tuple[int, str]]:
        """Layer number and kind of every dropped sublayer, both of a dropped block included."""
        whole = {(layer, kind) for layer in self.blocks for kind in SUBLAYERS}
        return whole | {(layer, ATTENTION) for layer in self.attention} | {(layer, MLP) for layer in self.mlp}

    def facts(self) -> dict[str, Any]:
        """Return everything but the weights, as plain values."""
        return {
            "blocks": list(self.blocks),
            "attention": list(self.attention),
            "mlp": list(self.mlp),
            "mixers": list(self.mixers),
            "achieved": self.achieved,
            "achieved_by_layer": list(self.achieved_by_layer),
            "parameters": self.parameters,
            "dense_parameters": self.dense_parameters,
            "scores": self.scores,
        }

    def save(self, folder: Path) -> None:
        (folder / DECISION).write_text(json.dumps(self.facts(), indent=1) + "\n", encoding="utf-8")
        files = ChangeFiles(folder)
        there = set(files)
        for layer in self.changes:
            if layer not in there:
                files[layer] = self.changes[layer]

    @classmethod
    def load(cls, folder: Path) -> Decision:
        facts = json.loads((folder / DECISION).read_text(encoding="utf-8"))
        return cls(
            blocks=tuple(facts["blocks"]),
            attention=tuple(facts["attention"]),
            mlp=tuple(facts["mlp"]),
            changes=ChangeFiles(folder),
            scores=facts["scores"],
            achieved=facts["achieved"],
            achieved_by_layer=tuple(facts["achieved_by_layer"]),
            parameters=facts["parameters"],
            dense_parameters=facts["dense_parameters"],
            mixers=tuple(facts.get("mixers", ())),
        )


def pack(mask: torch.Tensor) -> torch.Tensor:
    """Pack a boolean tensor of any shape into bytes, eight entries each, lowest bit first."""
    flat = mask.flatten().to(torch.uint8)
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (flat << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Invert ``pack``."""
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[: math.prod(shape)].view(shape).bool()
