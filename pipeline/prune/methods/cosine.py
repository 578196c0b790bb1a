"""Cosines between the residual stream before and after blocks and sublayers, over the calibration tokens."""

from __future__ import annotations

import torch

from pipeline.model.decoder import Decoder
from pipeline.model.residual import layout, tap, tap_blocks
from pipeline.prune.base import Context

# Tokens whose cosines are computed at a time: their states stay in the processor's cache as float32.
_ROWS = 1024


@torch.inference_mode()
def block_cosines(decoder: Decoder, context: Context) -> list[float]:
    """Compute the mean cosine, over tokens, of each block's input and output, in float32, averaged in float64."""
    sums = _CosineSums(len(decoder.blocks))

    def on_state(index: int, state: torch.Tensor) -> None:
        if index:
            sums.add(index - 1, index - 1, index, state)
        else:
            sums.start(state)

    with tap_blocks(decoder, on_state):
        _run(decoder, context, "block influence")
    return sums.means()


@torch.inference_mode()
def sublayer_cosines(decoder: Decoder, context: Context) -> list[float]:
    """Compute the mean over tokens of ``cos(x, x + f(norm(x)))`` for each sublayer, attention of block 0 first."""
    plan = layout(decoder)
    sums = _CosineSums(len(plan.after))
    sublayer_of = {state: index for index, state in enumerate(plan.after)}

    def on_state(index: int, state: torch.Tensor) -> None:
        if index in sublayer_of:
            sums.add(sublayer_of[index], plan.before[sublayer_of[index]], index, state)
        else:
            sums.start(state)

    with tap(decoder, on_state):
        _run(decoder, context, "sublayer importance")
    return sums.means()


def _run(decoder: Decoder, context: Context, what: str) -> None:
    for batch in context.each(what):
        decoder.base(batch.to(decoder.device), use_cache=False)


class _CosineSums:
    """Running sums of cosines between states; the norms of a state serve both cosines that it takes part in."""

    def __init__(self, count: int) -> None:
        self._sums, self._tokens = torch.zeros(count, dtype=torch.float64), 0
        self._rows: list[torch.Tensor] = []
        self._norms: list[torch.Tensor] = []
        self._after: tuple[int, list[torch.Tensor], list[torch.Tensor]] | None = None

    def start(self, state: torch.Tensor) -> None:
        """Set the state from which the next cosines are computed, one that follows no sublayer directly."""
        self._rows = list(state.reshape(-1, state.shape[-1]).split(_ROWS))
        self._norms = [_square(rows.float()) for rows in self._rows]
        self._after = None

    def add(self, place: int, before: int, after: int, state: torch.Tensor) -> None:
        """Add the cosines between state number ``before`` and ``state``, number ``after``, to the sum at ``place``."""
        if self._after is not None and self._after[0] == before:
            _, self._rows, self._norms = self._after
        rows = list(state.reshape(-1, state.shape[-1]).split(_ROWS))
        norms = []
        for x, square, y in zip(self._rows, self._norms, rows, strict=True):
            y32 = y.float()
            norms.append(_square(y32))
            inner = torch.linalg.vecdot(x.to(y.device).float(), y32)
            scale = (square.to(y.device) * norms[-1]).sqrt().clamp_(min=torch.finfo(torch.float32).tiny)
            self._sums[place] += (inner / scale).clamp_(-1, 1).sum(dtype=torch.float64).cpu()
        self._tokens += state[..., 0].numel() if place == 0 else 0
        self._after = after, rows, norms

    def means(self) -> list[float]:
        return (self._sums / self._tokens).tolist()


def _square(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vecdot(x, x)
