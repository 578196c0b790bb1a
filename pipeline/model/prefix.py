"""A forward pass stored before every block: after a change of one block, only the blocks from there on run again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext

import torch

from pipeline.model.activations import Activations, memory_budget
from pipeline.model.block_calls import Call, block_calls
from pipeline.model.decoder import Decoder
from pipeline.model.nested import first
from pipeline.model.trajectory import Forward

# Module types of blocks, one after the other: what dropping sublayers changes.
Variant = tuple[tuple[type, ...], ...]
# A block, and what opens a change of it: the change lasts until the context is left.
Change = tuple[int, Callable[[], AbstractContextManager[None]]]


class SharedPrefix:
    """States of a model before each of its blocks, on the passes over a trajectory.

    They are computed as far as they are needed, and again where sublayers before them were removed or restored. They
    are valid for every variant of the model whose first changed block is not before the block to resume from.
    """

    def __init__(self, decoder: Decoder, passes: Sequence[Forward], states: list[Activations]) -> None:
        self._decoder, self._passes, self._states = decoder, passes, states
        self._calls = block_calls(decoder, [each.ids() for each in passes], states[0])
        # The same for several variants side by side, by the pass's shape and their number.
        self._calls_of_several: dict[tuple[torch.Size, int], list[Call]] = {}
        # What the states of each pass went through.
        self._through: list[Variant] = [() for _ in passes]

    def variant(self, blocks: int | None = None) -> Variant:
        """Return the module types of the first ``blocks`` blocks, or of all: equal for equally pruned models."""
        return tuple(tuple(map(type, block.modules())) for block in self._decoder.blocks[:blocks])

    def final(self, layer: int, index: int) -> torch.Tensor:
        """Return the states (N, D) after the final norm at the predictions of a pass; blocks run from ``layer`` on."""
        return self.finals(index, [(layer, nullcontext)])[0]

    @torch.inference_mode()
    def finals(self, index: int, changes: Sequence[Change]) -> torch.Tensor:
        """Return these states (k, N, D) of k variants of the model as it is now, each with one block changed.

        Behind the block that differs, a variant runs side by side with the others: large products take less time.
        """
        order = sorted(range(len(changes)), key=lambda at: changes[at][0])
        layers = [changes[at][0] for at in order]
        self._advance(layers[-1], index)
        x, running = torch.empty(0), 0
        for layer in range(layers[0], len(self._decoder.blocks)):
            beside = [self._run(layer, index, self._decoder.passed_on(layer - 1, x), running)] if running else []
            while running < len(order) and layers[running] == layer:
                with changes[order[running]][1]():
                    beside.append(self._run(layer, index, self._states[layer][index]))
                running += 1
            x = torch.cat(beside) if len(beside) > 1 else beside[0]
        norm, x = self._decoder.final_norm, self._decoder.by_token(x)
        variants = (x if norm is None else norm(x)).chunk(len(order))
        final = [self._passes[index].at_predictions(each) for each in variants]
        return torch.stack([final[order.index(at)] for at in range(len(order))])

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

    def _run(self, layer: int, index: int, x: torch.Tensor, variants: int = 1) -> torch.Tensor:
        args, kwargs = (self._calls[index] if variants == 1 else self._several(index, variants))[layer]
        return first(self._decoder.blocks[layer](x.to(self._decoder.device), *args, **kwargs))

    def _several(self, index: int, variants: int) -> list[Call]:
        ids = self._passes[index].ids()
        if (ids.shape, variants) not in self._calls_of_several:
            with closing(Activations(memory_budget(), None)) as unused:
                (calls,) = block_calls(self._decoder, [ids.repeat(variants, 1)], unused)
            self._calls_of_several[ids.shape, variants] = calls
        return self._calls_of_several[ids.shape, variants]


@contextmanager
def shared_prefix(decoder: Decoder, passes: Sequence[Forward]) -> Iterator[SharedPrefix]:
    """Open a `SharedPrefix`; states that do not fit in memory go to temporary files, which are removed on leaving."""
    budget = memory_budget() // len(decoder.blocks)
    with ExitStack() as stack:
        states = [stack.enter_context(closing(Activations(budget, None))) for _ in decoder.blocks]
        with torch.inference_mode():
            prefix = SharedPrefix(decoder, passes, states)
        yield prefix
