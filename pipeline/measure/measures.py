"""All measures of pairs of states, streamed: memory never grows with positions times vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from pipeline.measure import certainty, divergence, orthogonality, similarity
from pipeline.measure.base import Measure, Tile, checked
from pipeline.measure.columns import COLUMNS
from pipeline.model.head import Head
from pipeline.model.softmax import kl_estimate

# Logits are projected in blocks of this many entries (340 positions of a 49k vocabulary, 64 MiB in float32), large
# enough for an efficient matrix product; on a processor they are measured in tiles that stay in its cache.
_BLOCK, TILE = 2**24, 2**19
# The C library returns freed memory to the system beyond a threshold, so that the next temporary is paged in anew,
# which would take most of the time. A freed block of this many bytes raises the threshold above what tiles need.
KEPT = 28 * 2**20


def keep_freed_memory() -> None:
    """Let temporaries of a tile reuse each other's memory instead of asking the system for it every time."""
    torch.empty(KEPT, dtype=torch.uint8)


def block_rows(head: Head) -> int:
    """Return the number of positions that are projected at once."""
    return _block_rows(head.vocabulary)


def _block_rows(vocabulary: int) -> int:
    return max(1, _BLOCK // vocabulary)


def block_entries(vocabulary: int, positions: int) -> int:
    """Return the number of logits that are projected at once, of some positions."""
    return min(positions, _block_rows(vocabulary)) * vocabulary


@torch.inference_mode()
def compare(
    dense: torch.Tensor,
    pruned: torch.Tensor,
    head: Head,
    temperatures: Sequence[float],
    extra: Sequence[Measure] = (),
) -> pd.DataFrame:
    """Compute all measures of section 2 for each position and temperature, the dense model's confidence, and ``extra``.

    ``dense`` and ``pruned`` are (N, D) hidden states; they and the output projection are cast to
    float32 at least (float64 stays). Returns N·len(temperatures) rows as ``as_table`` does.

    The logit perturbation is projected from the hidden perturbation, ``Δz = W Δh``, never a difference of logits:
    equal states measure exactly zero and small perturbations keep their digits.
    """
    dtype = torch.promote_types(torch.promote_types(dense.dtype, pruned.dtype), torch.float32)
    head = head.to(dtype)
    keep_freed_memory()
    parts = []
    for x, y in zip(dense.split(block_rows(head)), pruned.split(block_rows(head)), strict=True):
        h = x.to(dtype)
        delta_h = y.to(dtype) - h
        parts.append(measure_block(h, delta_h, head.project(h), head.change(delta_h), head, temperatures, extra))
    values = torch.cat(parts) if parts else torch.empty(0, len(temperatures), len(columns_of(extra)))
    return as_table(values, temperatures, extra)


def columns_of(extra: Sequence[Measure]) -> list[str]:
    """Return the names of the built-in measures, then those of further ones."""
    return [*COLUMNS, *(name for measure in extra for name in measure.columns)]


def as_table(values: torch.Tensor, temperatures: Sequence[float], extra: Sequence[Measure] = ()) -> pd.DataFrame:
    """Return values (N, len(temperatures), columns) as rows, positions outermost, temperatures in the given order.

    Columns: ``position``, ``temperature``, ``COLUMNS`` and those of ``extra``. Cosines are one minus an exactly
    computed angular deviation; ``orth_*`` and ``par_*`` are squared relative magnitudes; variances and RMS are in
    squared and plain logits; ``top1`` is the dense model's largest probability, ``entropy`` in nats, ``margin`` the
    difference of its two largest logits over T, ``flip`` 1 where pruning changes the argmax.
    """
    frame = pd.DataFrame(values.flatten(0, 1).cpu().numpy(), columns=columns_of(extra))
    frame.insert(0, "position", np.repeat(np.arange(len(values)), len(temperatures)))
    frame.insert(1, "temperature", np.tile(np.asarray(temperatures, dtype=float), len(values)))
    return frame


def measure_block(
    h: torch.Tensor,
    delta_h: torch.Tensor,
    z: torch.Tensor,
    delta: torch.Tensor,
    head: Head,
    temperatures: Sequence[float],
    extra: Sequence[Measure] = (),
    moved: bool = False,
) -> torch.Tensor:
    """Compute all measures of n positions: (n, len(temperatures), columns) float64.

    ``h`` and ``delta_h`` are dense states and their change (n, D), ``z`` and ``delta`` logits and their change
    (n, V), before any cap of the head. Logits that have ``moved`` are those of the pruned states: they become the dense
    ones in place, a tile at a time, while it is in the processor's cache.
    """
    rows = max(1, TILE // z.shape[-1]) if z.device.type == "cpu" else len(z)
    tiles = [
        _tile_measures(y, dy, *head.capped(x.sub_(dx) if moved else x, dx), temperatures, extra)
        for y, dy, x, dx in zip(*(each.split(rows) for each in (h, delta_h, z, delta)), strict=True)
    ]
    shared, names = _geometry(h, delta_h, "h"), columns_of(extra)
    columns = [
        torch.stack(
            [shared[name] if name in shared else torch.cat([tile[at][name] for tile in tiles]) for name in names], -1
        )
        for at in range(len(temperatures))
    ]
    return torch.stack(columns, 1)


def _tile_measures(
    h: torch.Tensor,
    delta_h: torch.Tensor,
    z: torch.Tensor,
    delta: torch.Tensor,
    temperatures: Sequence[float],
    extra: Sequence[Measure],
) -> list[dict[str, torch.Tensor]]:
    """Compute the measures in logit and probability space of a tile (n, V), and ``extra``: a mapping a temperature."""
    first, gap, flip = certainty.top(z, delta)
    shared = _geometry(z, delta, "z") | _uniform(delta) | {"flip": flip}
    measured = []
    for temperature in temperatures:
        p = divergence.probabilities(z, temperature)
        top1, entropy = certainty.confidence(p, z, first, temperature)
        sure = {"top1": top1, "entropy": entropy, "margin": gap / temperature}
        measured.append(shared | sure | _probabilities(p, z, delta, temperature))
        if extra:
            measured[-1] |= _further(Tile(h, delta_h, z, delta, temperature), extra)
    return measured


def _further(tile: Tile, extra: Sequence[Measure]) -> dict[str, torch.Tensor]:
    found = {}
    for measure in extra:
        for name, values in checked(measure, measure.compute(tile)).items():
            if not isinstance(values, torch.Tensor) or values.shape != tile.z.shape[:1]:
                what = f"of shape {tuple(values.shape)}" if isinstance(values, torch.Tensor) else type(values).__name__
                raise ValueError(
                    f"measure {measure.name}: {name} is {what} at {len(tile.z)} positions; return a tensor with a "
                    "number for each position"
                )
            found[name] = values.double()
    return found


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
    variance = orthogonality.mean_square(delta - mean)
    return {"var_uniform": variance, "rms_dz": (variance + mean.squeeze(-1).double().square()).sqrt()}


def _probabilities(
    p: torch.Tensor, z: torch.Tensor, delta: torch.Tensor, temperature: float
) -> dict[str, torch.Tensor]:
    measured = divergence.deviations(p, z, delta, temperature)
    return measured | {
        # Probabilities have no cosine below zero, but rounding may give one.
        "cos_p": (1 - measured["deviation_p"]).clamp(min=0),
        "est_cos_p": 1 - divergence.angular_estimate(measured["var_r"], temperature),
        "est_kl": kl_estimate(measured["var_p"], temperature),
    }
