"""A forward pass that is kept at the entrance of every block: a change of one block costs only what follows it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import torch

from pipeline.model.activations import Activations, memory_budget
from pipeline.model.block_calls import block_calls
from pipeline.model.decoder import Decoder
from pipeline.model.residual import first
from pipeline.model.trajectory import Forward


class SharedPrefix:
    """The states of a model before each of its blocks, on the passes over a trajectory.

    They are computed as far as they are asked for, and again where sublayers before them went or came back. They hold
    for every variant of the model whose first changed block is not before the one that is gone on from.
    """

    def __init__(self, decoder: Decoder, passes: Sequence[Forward], states: list[Activations]) -> None:
        self._decoder, self._passes, self._states = decoder, passes, states
        self._calls = block_calls(decoder, [each.ids() for each in passes], states[0])
        # What the blocks that the states went through were made of.
        self._through: list[list[type]] = []

    @torch.inference_mode()
    def final(self, layer: int) -> Iterator[torch.Tensor]:
        """The state after the final norm at every prediction, pass by pass, (N_i, D); blocks from ``layer`` on run."""
        self._advance(layer)
        for index, forward in enumerate(self._passes):
            x = self._states[layer][index]
            for following in range(layer, len(self._decoder.blocks)):
                x = self._run(following, index, x)
            norm = self._decoder.final_norm
            yield forward.at_predictions(x if norm is None else norm(x))

    def _advance(self, layer: int) -> None:
        """Have the states before block ``layer``."""
        parts = [[type(module) for module in self._decoder.blocks[at].modules()] for at in range(layer)]
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(self._through, parts, strict=False))
        for at in range(sum(1 for _ in same), layer):
            del self._through[at:]
            for index in range(len(self._passes)):
                self._states[at + 1][index] = self._run(at, index, self._states[at][index]).cpu()
            self._through.append(parts[at])

    def _run(self, layer: int, index: int, x: torch.Tensor) -> torch.Tensor:
        args, kwargs = self._calls[index][layer]
        return first(self._decoder.blocks[layer](x.to(self._decoder.device), *args, **kwargs))


@contextmanager
def shared_prefix(decoder: Decoder, passes: Sequence[Forward]) -> Iterator[SharedPrefix]:
    """States that do not fit in memory go to temporary files, which are removed on leaving."""
    budget = memory_budget() // len(decoder.blocks)
    with ExitStack() as stack:
        states = [stack.enter_context(closing(Activations(budget, None))) for _ in decoder.blocks]
        with torch.inference_mode():
            prefix = SharedPrefix(decoder, passes, states)
        yield prefix
