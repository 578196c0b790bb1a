"""Limits on sequence length: how long a sequence may be, and up to which length it is computed like a shorter one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.model.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# With this kind of rotary embedding, the factors of all tokens change once a sequence exceeds a certain length.
_SWITCHING = "longrope"


@dataclass(frozen=True)
class Positions:
    """Lengths (``ends``, ascending) after which a sequence is computed in another way or not at all.

    The factors of a forward pass follow from its longest row, padding included, and a cache keeps the factors that it
    was computed with. So sequences may be batched, and share a cache, only if their ``reach`` is the same.
    """

    ends: tuple[int, ...]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Positions:
        """Return the ends of a model: the lengths at which its rotary factors change, and its number of positions."""
        rope = getattr(model.config, "rope_parameters", None) or {}
        # Some families have parameters for each type of layer.
        kinds = [rope, *(each for each in rope.values() if isinstance(each, dict))]
        ends = {int(each["original_max_position_embeddings"]) for each in kinds if each.get("rope_type") == _SWITCHING}
        most = Decoder(model).positions
        return cls(tuple(sorted(ends if most is None else {end for end in ends if end < most} | {most})))

    def reach(self, length: int) -> float:
        """Return the largest length that is computed like ``length`` tokens; infinite beyond the last end."""
        return next((end for end in self.ends if length <= end), math.inf)

    def runs(self, lengths: Sequence[int], size: int, equal: bool = False) -> Iterator[slice]:
        """Yield slices of neighbours that may be batched, at most ``size`` each: the longest runs, in order.

        With ``equal``, all sequences of a run have the same length.
        """
        start = 0
        for end in range(1, len(lengths) + 1):
            if end == len(lengths) or end - start == size or self._differ(lengths[start], lengths[end], equal):
                yield slice(start, end)
                start = end

    def _differ(self, one: int, other: int, equal: bool) -> bool:
        return self.reach(one) != self.reach(other) or (equal and one != other)
