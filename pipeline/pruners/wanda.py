"""Wanda: prune by weight magnitude times input activation norm (Sun et al., arXiv 2306.11695)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.decoder import Decoder
from pipeline.pruners.base import Calibration, Pruner
from pipeline.pruners.blockwise import block_inputs, linear_inputs
from pipeline.pruners.decision import Decision
from pipeline.pruners.masks import per_output
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class Wanda(Pruner):
    """Metric ``|W_ij|·sqrt(s_j)`` compared inside each output row, block after block on the pruned blocks' outputs."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "pattern")
    unit: ClassVar[str] = "weight"
    calibrated: ClassVar[bool] = True

    @torch.no_grad()
    def decide(
        self,
        decoder: Decoder,
        sparsity: Sparsity,
        scores: list[dict[str, Any]],
        calibration: Calibration | None,
    ) -> Decision:
        assert calibration is not None
        states, keywords = zip(*(block_inputs(decoder, batch) for batch in calibration.batches), strict=True)
        hidden = list(states)
        sequences = sum(len(batch) for batch in calibration.batches)
        masks: dict[str, torch.Tensor] = {}
        layers = range(len(decoder.blocks))
        for layer in calibration.progress(layers, "wanda, block by block", len(layers)):
            block, linears = decoder.blocks[layer], decoder.linears(layer)
            energy: dict[str, torch.Tensor] = {}

            def accumulate(names: tuple[str, ...], x: torch.Tensor, energy: dict[str, torch.Tensor] = energy) -> None:
                energies = column_energy(x)
                for name in names:
                    energy[name] = energy[name] + energies if name in energy else energies

            with linear_inputs(linears, accumulate):
                for state, kwargs in zip(hidden, keywords, strict=True):
                    block(state, **kwargs[layer])
            for name, linear in linears.items():
                mask = per_output(metric(linear.weight, energy[name] / sequences), sparsity)
                linear.weight.data.masked_fill_(mask, 0)
                masks[f"{name}.weight"] = mask.cpu()
            if layer + 1 < len(layers):
                hidden = [block(state, **kwargs[layer]) for state, kwargs in zip(hidden, keywords, strict=True)]
        return Decision(masks=masks)


def column_energy(x: torch.Tensor) -> torch.Tensor:
    """Sum over all leading dimensions of the squared inputs: (..., in) to (in,), in float32."""
    x = x.reshape(-1, x.shape[-1]).float()
    return torch.linalg.vecdot(x, x, dim=0)


def metric(weight: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
    """``|W_ij|·sqrt(s_j)`` in float32: (out, in) weights and (in,) mean energy per sequence to (out, in)."""
    return weight.abs().float() * energy.sqrt()
