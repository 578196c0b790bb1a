"""Float32 products of bfloat16 values, on the units for bfloat16 where those are faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

# Values that are looked at together, so that a large matrix is not copied as a whole.
_VALUES = 2**20


def is_faster(device: torch.device) -> bool:
    """Return whether a device multiplies more bfloat16 than float32 at once."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _multiplies_more_bfloat16(torch.cpu.get_capabilities())


def _multiplies_more_bfloat16(processor: Mapping[str, Any]) -> bool:
    """Return whether instructions of a processor multiply more bfloat16 than float32 at once.

    Intel's AMX does, AVX-512 of theirs does not: its products of bfloat16 take up to twice as long as those of float32.
    """
    if processor.get("amx_bf16") or processor.get("bf16"):
        return True
    return bool(processor.get("avx512_bf16")) and "Intel" not in str(processor.get("cpu_name", ""))


def holds_bfloat16(x: torch.Tensor) -> bool:
    """Return whether all values of a tensor are values of bfloat16, whatever its dtype."""
    if x.dtype == torch.bfloat16:
        return True
    return all(bool((part == part.bfloat16()).all()) for part in x.flatten().split(_VALUES))


@contextmanager
def exact_products(device: torch.device, holds: Callable[[], bool]) -> Iterator[None]:
    """Let float32 products on a device run in its faster mode within the block, if ``holds`` says that nothing is lost.

    That is so where all factors are values of bfloat16: their products are exact in float32, and float32 adds them up,
    so that a sum is as precise as one in another order. The mode is one of the whole process: another thread must not
    multiply meanwhile.
    """
    if not (is_faster(device) and holds()):
        yield
        return
    backends: list[Any] = [torch.backends.mkldnn.matmul, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    # On GPUs TF32 has all digits of bfloat16.
    backends[0].fp32_precision, backends[1].fp32_precision = "bf16", "tf32"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
