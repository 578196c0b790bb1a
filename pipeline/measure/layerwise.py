"""Measures of the layer protocol: one walk up the residual stream that projects each distinct state once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pipeline.common.terminal import Progress
from pipeline.measure.base import Measure
from pipeline.measure.measures import block_rows, keep_freed_memory, measure_block
from pipeline.model.head import Head

# Logits that are carried on by adding changes are projected afresh after this many sublayers, which keeps the rounding
# errors of the sums at the level of a single product.
_AFRESH = 30


@dataclass(frozen=True)
class Stream:
    """The residual stream around every sublayer.

    ``residual`` (states, N, D) are the distinct states of the dense model, of which ``before[i]`` and ``after[i]``
    surround sublayer i. ``counterparts`` (sublayers, N, D) are the states after each sublayer if it alone is pruned;
    None if pruning leaves the state before it.
    """

    residual: torch.Tensor
    before: tuple[int, ...]
    after: tuple[int, ...]
    counterparts: torch.Tensor | None = None


@torch.inference_mode()
def measure_stream(
    stream: Stream,
    head: Head,
    temperatures: Sequence[float],
    progress: Progress,
    norm: Callable[[torch.Tensor], torch.Tensor] | None = None,
    extra: Sequence[Measure] = (),
) -> torch.Tensor:
    """Compute all measures of every sublayer and position: (sublayers, N, len(temperatures), columns) float64.

    Logits are read from the raw states, or through ``norm`` if one is given; ``extra`` are further measures. States are
    cast to the projection's dtype, float32 at least, and moved to its device.
    """
    head = head.to(torch.promote_types(head.weight.dtype, torch.float32))
    rows, sublayers = block_rows(head), len(stream.after)
    keep_freed_memory()
    starts = range(0, stream.residual.shape[1], rows)
    ticks = iter(progress(range(len(starts) * sublayers), "measure, sublayer by sublayer", len(starts) * sublayers))
    found: list[list[torch.Tensor]] = [[] for _ in range(sublayers)]
    for start in starts:
        walk = _Walk(stream, slice(start, start + rows), head, norm)
        for index in range(sublayers):
            h, delta_h, z, delta, moved = walk.step(index)
            found[index].append(measure_block(h, delta_h, z, delta, head, temperatures, extra, moved))
            next(ticks)
        # Before those of the next block take memory.
        del walk, z, delta
    next(ticks, None)
    return torch.stack([torch.cat(parts) for parts in found])


class _Walk:
    """Logits of one block of positions, carried up the residual stream."""

    def __init__(
        self, stream: Stream, rows: slice, head: Head, norm: Callable[[torch.Tensor], torch.Tensor] | None
    ) -> None:
        self.stream, self.rows, self.head, self.norm = stream, rows, head, norm
        size = stream.residual[0, rows].shape[0], head.vocabulary
        self.z, self.delta = head.weight.new_empty(size), head.weight.new_empty(size)
        # State that the logits belong to, and the number of steps that they have been carried on.
        self.state, self.carried = -1, 0

    def step(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, bool]:
        """Return the dense state after a sublayer, its change by pruning, logits, their change, and whether they moved.

        Logits that have moved are those of the pruned state: the caller has to subtract the change from them.
        """
        before, after = self.stream.before[index], self.stream.after[index]
        dense = self._state(self.stream.residual[after])
        if self.stream.counterparts is not None:
            pruned = self._state(self.stream.counterparts[index])
            self.head.project(self._read(dense), out=self.z)
            self.head.change(self._read(pruned) - self._read(dense), out=self.delta)
            return dense, pruned - dense, self.z, self.delta, False
        pruned = self._state(self.stream.residual[before])
        if self.state != before or self.carried >= _AFRESH:
            self.head.project(self._read(pruned), out=self.z)
            self.carried = 0
        self.head.change(self._read(pruned) - self._read(dense), out=self.delta)
        self.state, self.carried = after, self.carried + 1
        return dense, pruned - dense, self.z, self.delta, True

    def _state(self, state: torch.Tensor) -> torch.Tensor:
        return state[self.rows].to(self.head.weight)

    def _read(self, state: torch.Tensor) -> torch.Tensor:
        return state if self.norm is None else self.norm(state)
