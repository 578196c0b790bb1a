"""Products on bfloat16 units, where they are faster and lose nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


def is_faster() -> bool:
    """Return whether the hardware multiplies more bfloat16 than float32 at once."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _multiplies_more_bfloat16(torch.cpu.get_capabilities())


def _multiplies_more_bfloat16(processor: Mapping[str, Any]) -> bool:
    """Return whether instructions of a processor multiply more bfloat16 than float32 at once.

    Intel's AMX does, AVX-512 of theirs does not: its products of bfloat16 take up to twice as long as those of float32.
    """
    if processor.get("amx_bf16") or processor.get("bf16"):
        return True
    return bool(processor.get("avx512_bf16")) and "Intel" not in str(processor.get("cpu_name", ""))


def holds_bfloat16(x: torch.Tensor) -> bool:
    """Return whether all values of a tensor are values of bfloat16, whatever its dtype."""
    return x.dtype == torch.bfloat16 or bool((x == x.bfloat16()).all())


@contextmanager
def exact_products(bfloat16_values: bool) -> Iterator[None]:
    """Let float32 products of bfloat16 values run on bfloat16 (on GPUs TF32) units within the block.

    Nothing is lost: the products are exact and the sums are in float32 either way. Without ``bfloat16_values``, or
    where these units are not faster, products are left as they are.
    """
    backends: list[Any] = [torch.backends.mkldnn.matmul, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    if bfloat16_values and is_faster():
        backends[0].fp32_precision, backends[1].fp32_precision = "bf16", "tf32"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
