"""How wide a row of a prefix tree a model takes: its positions and windows, and a trial on a few tokens."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pipeline.evaluate.prefix_tree import Branch, Item, Placed, Row
from pipeline.evaluate.straight_pass import TIMES, StraightPass
from pipeline.evaluate.tree_pass import TreePass
from pipeline.model.as_read import ROUNDING, as_read, rounding_level
from pipeline.model.common_prefix import common
from pipeline.model.positions import Positions
from pipeline.model.short_pass import tokens

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)
_widest: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


def widest_row(model: PreTrainedModel) -> float:
    """Return how many tokens a row of a prefix tree may have, with its cache; 0 if the model takes none.

    A row must lie within any window or chunk of the model, which are counted along the row, and within the positions
    up to which all sequences are computed alike. Whether the model takes a mask and positions of our own, and goes on
    from a cache with them, is tried once on a few tokens.
    """
    if model not in _widest:
        ends = (*Positions.of(model).ends, *_windows(model.config))
        widest = min(ends, default=math.inf)
        _widest[model] = widest if as_read(model).alone and _takes_trees(model, widest) else 0
    return _widest[model]


def _windows(config: PretrainedConfig) -> Iterator[int]:
    """Yield the lengths in a configuration, and in those of its parts, that may be windows or chunks of attention."""

    def lengths(values: Mapping[str, Any]) -> Iterator[int]:
        for name, value in ((str(name), value) for name, value in values.items()):
            if isinstance(value, Mapping):
                yield from lengths(value)
            elif ("window" in name or "chunk" in name) and not name.endswith(("layers", "pattern")):
                several = value if isinstance(value, list) else [value]
                yield from (each for each in several if isinstance(each, int) and each > 1)

    return lengths(config.to_dict())


def _takes_trees(model: PreTrainedModel, widest: float) -> bool:
    """Return whether a prefix tree of a few tokens, in a row and after a cache, gives what each one alone does."""
    ids = tokens(model)[0].tolist()
    texts = [ids[:7], [*ids[:4], ids[9], ids[5]], ids[8:10]]
    if sum(map(len, texts)) > widest:
        return False
    items = [Item(tuple(text), [(at, [*text[-2:], ids[-1]])]) for at, text in enumerate(texts[:2])]
    other = Item(tuple(texts[2]), [(2, [ids[9], ids[3]])])
    try:
        alone = {at: answer for item in (*items, other) for at, answer in StraightPass(model, 1).whole([item])}
        one_row = Branch(rows=[[*_placed(items, 0), *_placed([other], 0)]])
        held = Branch(branches=[Branch(tuple(ids[:3]), rows=[_placed(items, 3), _placed(items[1:], 3)])])
        tried = [
            dict(answer for part in TreePass(model, 4).answers(tree, 64) for answer in part) for tree in (one_row, held)
        ]
    except Exception as error:
        log.debug("no prefix tree: %s", error)
        return False
    near = max(TIMES * ROUNDING.get(model.dtype, 0.0), rounding_level(model))
    return all(
        abs(value - alone[at][0]) <= near * max(1.0, -alone[at][0])
        for found in tried
        for at, (value, _) in found.items()
    )


def _placed(items: Sequence[Item], held: int) -> Row:
    """Return items as a row: each shares with the one before it what they have in common."""
    before = [held, *(common(one.tokens, other.tokens) for one, other in pairwise(items))]
    return [Placed(item, shared) for item, shared in zip(items, before, strict=True)]
