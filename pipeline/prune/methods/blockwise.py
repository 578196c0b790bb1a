"""Weight changes block by block: each block gets the calibration set as the changed blocks before it pass it on.

Only one block, its statistics and the states between two blocks are in use at a time, so a model larger than memory can
be pruned; finished blocks are kept, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.config.sparsity import Sparsity, unaccepted
from pipeline.model.activations import Activations, memory_budget
from pipeline.model.block_calls import Call, block_calls
from pipeline.model.decoder import Decoder, Linear
from pipeline.model.experts import one_expert_at_a_time
from pipeline.model.linear_inputs import OnInput, linear_inputs
from pipeline.model.offload import resident
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import Change, Decision, facts_of
from pipeline.prune.surgery import change_weights


@dataclass(frozen=True)
class CalibratedBlock:
    """One block with its original weights, and its inputs on the calibration set."""

    decoder: Decoder
    layer: int
    linears: list[Linear]
    inputs: Activations
    calls: list[Call]
    sequences: int

    def watch(self, on_input: OnInput, only: Collection[str] | None = None) -> None:
        """Pass the calibration set through the block; ``on_input(names, x)`` gets the inputs (tokens, in) of matrices.

        ``only`` restricts this to some of them. Products that nothing else in the block reads are not computed.
        """
        watched = [w for w in self.linears if only is None or w.name in only]
        ends = {w.name for w in self.decoder.ends(self.layer)}
        known = [*watched, *(w for w in self.linears if w.name in ends and w not in watched)]
        wanted = {w.name for w in watched}

        def listen(names: tuple[str, ...], x: torch.Tensor) -> None:
            if names := tuple(name for name in names if name in wanted):
                on_input(names, x)

        block = self.decoder.blocks[self.layer]
        for x, (args, kwargs) in zip(self.inputs, self.calls, strict=True):
            with linear_inputs(known, listen, skip=ends):
                block(_moved(x, self.linears), *args, **kwargs)


@dataclass(frozen=True)
class BlockwisePruner(Pruner):
    """A pruner that changes the weights of one block after the other. Implement ``change``."""

    version: ClassVar[int] = 3
    accepts: ClassVar[tuple[str, ...]] = ("fraction", "pattern")
    unit: ClassVar[str] = "weight"

    def change(self, block: CalibratedBlock, sparsity: Sparsity) -> Change:
        """Return the change of a block; the block itself stays as it is."""
        raise TypeError(f"pruner {type(self).__name__} does not define change()")

    def zeros(self, rows: int, columns: int, share: float) -> int:
        """Return how many weights of a matrix it zeroes at a fraction."""
        return int(rows * columns * share)

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        if self.accepts and sparsity.is_zero:
            return Decision()
        # Another pruner may call this one with a sparsity that nothing has checked.
        if self.accepts and (problem := unaccepted(self.name, self.accepts, sparsity)):
            raise ValueError(problem)
        return self.decide_each(decoder, [sparsity] * len(decoder.blocks), context)

    @torch.no_grad()
    def decide_each(self, decoder: Decoder, sparsities: Sequence[Sparsity], context: Context) -> Decision:
        """Decide with a sparsity for each block."""
        run(self, decoder, sparsities, context)
        notes = [note for layer in context.changes for note in facts_of(context.changes, layer)[0]]
        return Decision(changes=context.changes, scores=notes)


def run(pruner: BlockwisePruner, decoder: Decoder, sparsities: Sequence[Sparsity], context: Context) -> None:
    """Fill ``context.changes`` block by block. Blocks that are in it already are only passed through."""
    with closing(walk(decoder, context, f"{pruner.name}, block by block")) as blocks:
        for block in blocks:
            if block.layer not in context.changes:
                context.changes[block.layer] = pruner.change(block, sparsities[block.layer])
            change_weights(decoder.model, context.changes[block.layer])


def walk(decoder: Decoder, context: Context, what: str) -> Generator[CalibratedBlock, None, None]:
    """Yield each block in turn, in memory, behind a progress bar named ``what``.

    The inputs of the next block are the outputs of this one, with the weights that it has when the next is requested.
    """
    layers = range(len(decoder.blocks))
    with (
        one_expert_at_a_time(decoder.model),
        closing(Activations(memory_budget(), context.scratch)) as states,
    ):
        calls = block_calls(decoder, context.batches, states)
        for layer in context.progress(layers, what, len(layers)):
            with resident(decoder.blocks[layer]):
                mine = [each[layer] for each in calls]
                yield CalibratedBlock(decoder, layer, decoder.linears(layer), states, mine, context.sequences)
                if layer + 1 < len(layers):
                    for index, (args, kwargs) in enumerate(mine):
                        x = _moved(states[index], decoder.linears(layer))
                        states[index] = decoder.passed_on(layer, decoder.blocks[layer](x, *args, **kwargs)).cpu()


def _moved(x: torch.Tensor, linears: Sequence[Linear]) -> torch.Tensor:
    return x.to(linears[0].weight.device) if linears else x
