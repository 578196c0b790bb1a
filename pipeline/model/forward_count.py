"""How many tokens go through a model while something is computed, in passes through all of its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.model.decoder import Decoder
from pipeline.model.short_pass import stream_of

if TYPE_CHECKING:
    from torch import nn


@dataclass
class ForwardCount:
    """Tokens that went forward through a block, summed over blocks; padding counts, and so does a second pass."""

    blocks: int
    through_blocks: int = 0

    @property
    def tokens(self) -> float:
        """Tokens that went through the whole model, where a pass through some blocks counts for their share."""
        return self.through_blocks / self.blocks


@contextmanager
def counting_forwards(decoder: Decoder) -> Iterator[ForwardCount]:
    """Count what goes through the blocks of a model within the ``with`` block."""
    count = ForwardCount(len(decoder.blocks))

    def note(block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        count.through_blocks += stream_of(args, kwargs).shape[:-1].numel()

    with ExitStack() as stack:
        for block in decoder.blocks:
            stack.callback(block.register_forward_pre_hook(note, with_kwargs=True).remove)
        yield count
