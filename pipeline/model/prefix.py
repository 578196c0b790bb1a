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


class SharedPrefix:
    """States of a model before each of its blocks, on the passes over a trajectory.

    They are computed as far as they are needed, and again where sublayers before them were removed or restored. They
    are valid for every variant of the model whose first changed block is not before the block to resume from.
    """

    def __init__(self, decoder: Decoder, passes: Sequence[Forward], states: list[Activations]) -> None:
        self._decoder, self._passes, self._states = decoder, passes, states
        self._calls = block_calls(decoder, [each.ids() for each in passes], states[0])
        # Module types of the blocks that the states went through.
        self._through: list[list[type]] = []

    @torch.inference_mode()
    def final(self, layer: int) -> Iterator[torch.Tensor]:
        """Yield the state after the final norm at every prediction, per pass (N_i, D); blocks run from ``layer`` on."""
        self._advance(layer)
        for index, forward in enumerate(self._passes):
            x = self._states[layer][index]
            for following in range(layer, len(self._decoder.blocks)):
                x = self._decoder.passed_on(following - 1, x) if following > layer else x
                x = self._run(following, index, x)
            norm, x = self._decoder.final_norm, self._decoder.by_token(x)
            yield forward.at_predictions(x if norm is None else norm(x))

    def _advance(self, layer: int) -> None:
        """Compute the states before block ``layer`` where they are missing or outdated."""
        parts = [[type(module) for module in self._decoder.blocks[at].modules()] for at in range(layer)]
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(self._through, parts, strict=False))
        for at in range(sum(1 for _ in same), layer):
            del self._through[at:]
            for index in range(len(self._passes)):
                x = self._run(at, index, self._states[at][index])
                self._states[at + 1][index] = self._decoder.passed_on(at, x).cpu()
            self._through.append(parts[at])

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
