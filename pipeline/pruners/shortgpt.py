"""ShortGPT: remove the blocks with the lowest block influence (Men et al., arXiv 2403.03853)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.decoder import Decoder
from pipeline.measures.similarity import cosine
from pipeline.pruners.base import Calibration, Pruner
from pipeline.pruners.decision import Decision
from pipeline.residual import tap
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class ShortGPT(Pruner):
    """Block influence ``BI_i = 1 - mean cos(block input, block output)`` over calibration tokens, scored once."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    unit: ClassVar[str] = "block"
    calibrated: ClassVar[bool] = True
    scores_once: ClassVar[bool] = True

    def importance(self, decoder: Decoder, calibration: Calibration | None) -> list[dict[str, Any]]:
        assert calibration is not None
        cosines = mean_cosines(decoder, calibration, stride=2, what="block influence")
        return [{"layer": layer, "sublayer": "block", "score": 1.0 - value} for layer, value in enumerate(cosines)]

    def decide(
        self,
        decoder: Decoder,
        sparsity: Sparsity,
        scores: list[dict[str, Any]],
        calibration: Calibration | None,
    ) -> Decision:
        count = sparsity.units_of(len(scores))
        if count == len(scores):
            raise ValueError(f"sparsity={sparsity.given} removes all {count} blocks; keep at least one")
        ranked = sorted(scores, key=lambda row: row["score"])
        return Decision(blocks=tuple(sorted(row["layer"] for row in ranked[:count])), scores=scores)


@torch.inference_mode()
def mean_cosines(decoder: Decoder, calibration: Calibration, stride: int, what: str) -> list[float]:
    """Mean over calibration tokens of the cosine between consecutive residual states ``stride`` sublayers apart.

    Stride 1 gives one value a sublayer, ``cos(x, x + f(norm(x)))``; stride 2 one a block. Cosines are taken in
    float32 and averaged in float64.
    """
    states = 2 * len(decoder.blocks) // stride
    sums, tokens = torch.zeros(states, dtype=torch.float64), 0
    previous: list[torch.Tensor] = []

    def on_state(index: int, state: torch.Tensor) -> None:
        if index % stride:
            return
        if index:
            sums[index // stride - 1] += cosine(previous.pop(), state).sum(dtype=torch.float64).cpu()
        previous[:] = [state]

    with tap(decoder, on_state):
        for batch in calibration.each(what):
            decoder.base(batch.to(decoder.device), use_cache=False)
            tokens += batch.numel()
    return (sums / tokens).tolist()
