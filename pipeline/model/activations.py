"""Hidden states of the calibration set between two blocks: in memory as long as they fit, then on disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file, save_file

_CGROUP = Path("/sys/fs/cgroup")


class Activations:
    """One tensor per batch, read and replaced one after the other.

    Batches beyond ``budget`` bytes go to files in the folder ``scratch``, or in a temporary folder if that is None;
    ``close`` removes the folder.
    """

    def __init__(self, budget: int, scratch: Path | None) -> None:
        self._budget = budget
        self._there: dict[int, torch.Tensor] = {}
        self._on_disk: set[int] = set()
        self._folder: Path | None = None
        self._scratch = scratch

    def __len__(self) -> int:
        return len(self._there) + len(self._on_disk)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index in self._there:
            return self._there[index]
        return load_file(self._file(index))["x"]

    def __setitem__(self, index: int, x: torch.Tensor) -> None:
        self._there.pop(index, None)
        held = sum(tensor.nbytes for tensor in self._there.values())
        if held + x.nbytes <= self._budget:
            self._there[index] = x
            self._on_disk.discard(index)
        else:
            save_file({"x": x.contiguous()}, self._file(index))
            self._on_disk.add(index)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[index] for index in range(len(self)))

    @property
    def on_disk(self) -> int:
        """Number of batches that did not fit in memory."""
        return len(self._on_disk)

    def _file(self, index: int) -> Path:
        if self._folder is None:
            self._folder = self._scratch or Path(tempfile.mkdtemp(prefix="activations-"))
            self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{index}.safetensors"

    def close(self) -> None:
        self._there.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def memory_budget(device: torch.device | None = None) -> int:
    """Return the bytes to keep in memory, or on a GPU: a quarter of the free ones.

    A block needs several times its input.
    """
    return free_memory(device) // 4


def free_memory(device: torch.device | None = None) -> int:
    """Return the free bytes of memory, or of a GPU."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available
    # In a container the limit counts, not the machine's memory; without a limit there is no number to read.
    with suppress(OSError, ValueError):
        limit, used = (int((_CGROUP / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
        free = min(free, max(0, limit - used))
    return free
