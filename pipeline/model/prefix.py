"""A forward pass stored before every block: after a change of one block, only the blocks from there on run again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import torch

from pipeline.model.activations import Activations, memory_budget
from pipeline.model.block_calls import block_calls
from pipeline.model.decoder import Decoder
from pipeline.model.nested import first
from pipeline.model.trajectory import Forward

# Module types of blocks, one after the other: what dropping sublayers changes.
Variant = tuple[tuple[type, ...], ...]


class SharedPrefix:
    """States of a model before each of its blocks, on the passes over a trajectory.

    They are computed as far as they are needed, and again where sublayers before them were removed or restored. They
    are valid for every variant of the model whose first changed block is not before the block to resume from.
    """

    def __init__(self, decoder: Decoder, passes: Sequence[Forward], states: list[Activations]) -> None:
        self._decoder, self._passes, self._states = decoder, passes, states
        self._calls = block_calls(decoder, [each.ids() for each in passes], states[0])
        # What the states of each pass went through.
        self._through: list[Variant] = [() for _ in passes]

    def variant(self, blocks: int | None = None) -> Variant:
        """Return the module types of the first ``blocks`` blocks, or of all: equal for equally pruned models."""
        return tuple(tuple(map(type, block.modules())) for block in self._decoder.blocks[:blocks])

    @torch.inference_mode()
    def final(self, layer: int, index: int) -> torch.Tensor:
        """Return the states (N, D) after the final norm at the predictions of a pass; blocks run from ``layer`` on."""
        self._advance(layer, index)
        x = self._states[layer][index]
        for following in range(layer, len(self._decoder.blocks)):
            x = self._decoder.passed_on(following - 1, x) if following > layer else x
            x = self._run(following, index, x)
        norm, x = self._decoder.final_norm, self._decoder.by_token(x)
        return self._passes[index].at_predictions(x if norm is None else norm(x))

    def _advance(self, layer: int, index: int) -> None:
        """Compute the state of a pass before block ``layer`` where it is missing or outdated."""
        through = self.variant(layer)
        pairs = zip(self._through[index], through, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        for at in range(same, layer):
            x = self._run(at, index, self._states[at][index])
            self._states[at + 1][index] = self._decoder.passed_on(at, x).cpu()
        if same < layer:
            self._through[index] = through

    def _run(self, layer: int, index: int, x: torch.Tensor) -> torch.Tensor:
        args, kwargs = self._calls[index][layer]
        return first(self._decoder.blocks[layer](x.to(self._decoder.device), *args, **kwargs))


@contextmanager
def shared_prefix(decoder: Decoder, passes: Sequence[Forward]) -> Iterator[SharedPrefix]:
    """Open a `SharedPrefix`; states that do not fit in memory go to temporary files, which are removed on leaving."""
    budget = memory_budget() // len(decoder.blocks)
    with ExitStack() as stack:
        states = [stack.enter_context(closing(Activations(budget, None))) for _ in decoder.blocks]
        with torch.inference_mode():
            prefix = SharedPrefix(decoder, passes, states)
        yield prefix
