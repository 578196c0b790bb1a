"""Every measure of one pair of states, streamed so that memory never grows with positions times vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from pipeline.measures import divergence, orthogonality, similarity

COLUMNS = [
    "cos_h",
    "cos_z",
    "cos_p",
    "kl",
    "orth_h",
    "orth_z",
    "par_h",
    "par_z",
    "var_p",
    "var_r",
    "var_uniform",
    "rms_dz",
    "est_cos_h",
    "est_cos_z",
    "est_cos_p",
    "est_kl",
]
# Logits are projected by blocks of this many entries (64 positions of a 49k vocabulary, 12 MiB in float32), large
# enough for an efficient matrix product, and measured by tiles small enough to stay in the processor's cache.
_BLOCK, _TILE = 3 * 2**20, 2**18


@dataclass(frozen=True)
class Head:
    """The map from hidden states to logits, ``z = W h``: ``weight`` is (V, D).

    Some families add a ``bias`` (V,), or squash the logits to ``cap·tanh(z / cap)``.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    cap: float | None = None

    def to(self, dtype: torch.dtype) -> Head:
        return Head(self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype), self.cap)

    def logits(self, h: torch.Tensor, delta_h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, V) of states (N, D), and what a change of the states changes them by: none exactly for none."""
        z, delta = h @ self.weight.T, delta_h @ self.weight.T
        if self.bias is not None:
            z += self.bias
        if self.cap is not None:
            before, after = self._capped(z), self._capped(z + delta)
            return before, after - before
        return z, delta

    def _capped(self, z: torch.Tensor) -> torch.Tensor:
        assert self.cap is not None
        return (z / self.cap).tanh_().mul_(self.cap)


@torch.inference_mode()
def compare(dense: torch.Tensor, pruned: torch.Tensor, head: Head, temperatures: Sequence[float]) -> pd.DataFrame:
    """All measures of section 2 for each position and temperature.

    ``dense`` and ``pruned`` are (N, D) hidden states; they and the output projection are taken to
    float32 at least (float64 stays). Returns N·len(temperatures) rows, positions outermost and temperatures in the
    given order, with the columns
    ``position``, ``temperature`` and ``COLUMNS``. Cosines are one minus an exactly computed angular deviation;
    ``orth_*`` and ``par_*`` are squared relative magnitudes; variances and RMS are in squared and plain logits.

    The logit perturbation is projected from the hidden perturbation, ``Δz = W Δh``, never a difference of logits,
    so equal states measure exactly zero and small perturbations keep their digits.
    """
    dtype = torch.promote_types(torch.promote_types(dense.dtype, pruned.dtype), torch.float32)
    head = head.to(dtype)
    rows = max(1, _BLOCK // len(head.weight))
    parts = [
        _compare_rows(x.to(dtype), y.to(dtype), head, temperatures, first * rows)
        for first, (x, y) in enumerate(zip(dense.split(rows), pruned.split(rows), strict=True))
    ]
    table = (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["position", "temperature", *COLUMNS])
    )
    return table.sort_values("position", kind="stable", ignore_index=True)


def _compare_rows(
    h: torch.Tensor, h2: torch.Tensor, head: Head, temperatures: Sequence[float], start: int
) -> pd.DataFrame:
    delta_h = h2 - h
    z, delta_z = head.logits(h, delta_h)
    tile = max(1, _TILE // len(head.weight))
    tiles = [_logit_measures(x, dx, temperatures) for x, dx in zip(z.split(tile), delta_z.split(tile), strict=True)]
    in_h = _geometry(h, delta_h, "h")
    frames = []
    for place, temperature in enumerate(temperatures):
        columns = in_h | {name: torch.cat([part[place][name] for part in tiles]) for name in tiles[0][place]}
        frame = pd.DataFrame({name: columns[name].cpu().numpy() for name in COLUMNS})
        frame.insert(0, "position", range(start, start + len(h)))
        frame.insert(1, "temperature", float(temperature))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _logit_measures(
    z: torch.Tensor, delta: torch.Tensor, temperatures: Sequence[float]
) -> list[dict[str, torch.Tensor]]:
    """Measures in logit and probability space of a tile (n, V), one mapping a temperature."""
    shared = _geometry(z, delta, "z") | _uniform(delta)
    return [shared | _probabilities(z, delta, temperature) for temperature in temperatures]


def _geometry(x: torch.Tensor, delta: torch.Tensor, space: str) -> dict[str, torch.Tensor]:
    parallel, orthogonal = orthogonality.split(x, delta)
    return {
        f"cos_{space}": 1 - similarity.angular_deviation(parallel, orthogonal),
        f"orth_{space}": orthogonal,
        f"par_{space}": parallel.square(),
        f"est_cos_{space}": 1 - orthogonality.angular_estimate(orthogonal),
    }


def _uniform(delta: torch.Tensor) -> dict[str, torch.Tensor]:
    mean = delta.mean(-1, keepdim=True)
    variance = (delta - mean).square_().mean(-1).double()
    return {"var_uniform": variance, "rms_dz": (variance + mean.squeeze(-1).double().square()).sqrt()}


def _probabilities(z: torch.Tensor, delta: torch.Tensor, temperature: float) -> dict[str, torch.Tensor]:
    measured = divergence.probabilities(z, delta, temperature)
    return measured | {
        "cos_p": 1 - measured["deviation_p"],
        "est_cos_p": 1 - divergence.angular_estimate(measured["var_r"], temperature),
        "est_kl": divergence.kl_estimate(measured["var_p"], temperature),
    }
