"""Origin and cost of results: code, versions, machine; time, memory and energy."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

# Packages that numbers depend on.
_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "lm-eval",
    "datasets",
    "accelerate",
    "gguf",
    "numpy",
    "pandas",
    "pyarrow",
)
_ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "SLURM_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
)
_REPOSITORY = Path(__file__).resolve().parents[2]
# Paths where a change alters results; an untracked file there is a change, too.
_CODE = ("pipeline", "conf", "requirements.txt")
_COMMAND_SECONDS = 5
_PROC, _POWERCAP = Path("/proc/self"), Path("/sys/class/powercap")
_GIB = 2**30


@cache
def origin() -> dict[str, Any]:
    """Return the code (git commit, and whether files differ from it), versions, machine and relevant environment.

    ``commit`` and ``dirty`` are None where git does not say. Plain JSON values; the same for a whole process.
    """
    commit = _git("rev-parse", "HEAD")
    changes = None if commit is None else _git("status", "--porcelain", "--", *_CODE)
    torch: Any = sys.modules.get("torch")
    return {
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "system": platform.platform(),
        "host": platform.node(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if hasattr(torch, "get_num_threads") else None,
        "memory_gib": round(psutil.virtual_memory().total / _GIB, 1),
        "gpus": _gpus(),
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }


class Meter:
    """Measures the cost of a ``with`` block; ``cost`` is empty before its end.

    ``seconds`` and ``cpu_seconds`` (of this process, all threads, not of programs that it starts); ``peak_gib``: the
    most memory that the process held at once, all of it, not only what the block added, from the kernel's high-water
    mark, or from 20 samples per second where that mark cannot be reset; ``gpu_peak_gib``: the most that torch had
    allocated on one GPU, None without; ``energy_joules`` of the processor packages and ``gpu_energy_joules`` of the
    GPUs in use, other processes included, None where the machine does not report it.
    Blocks may be nested: an outer one includes the inner ones. ``note`` adds a cost of another kind to the innermost.
    """

    _open: ClassVar[list[Meter]] = []

    def __init__(self) -> None:
        self.cost: dict[str, Any] = {}
        self._noted: dict[str, float] = {}
        self._peak = self._gpu_peak = 0

    def __enter__(self) -> Self:
        # Peaks before this block belong to the outer ones: note them before the marks are reset.
        _note_peaks(self._open)
        self._open.append(self)
        _watch.mark()
        self._start = time.monotonic(), time.process_time(), _watch.joules(), _gpu_joules()
        return self

    def __exit__(self, *error: object) -> None:
        _note_peaks(self._open)
        self._open.remove(self)
        if not self._open:
            _watch.stop()
        seconds, processor, *energy = self._start
        used = [_difference(*pair) for pair in zip(energy, (_watch.joules(), _gpu_joules()), strict=True)]
        self.cost = {
            "seconds": round(time.monotonic() - seconds, 3),
            "cpu_seconds": round(time.process_time() - processor, 3),
            "peak_gib": round(self._peak / _GIB, 3),
            "gpu_peak_gib": round(self._gpu_peak / _GIB, 3) if self._gpu_peak else None,
            "energy_joules": used[0],
            "gpu_energy_joules": used[1],
            **self._noted,
        }

    @classmethod
    def note(cls, name: str, amount: float) -> None:
        """Note a cost in its own unit; without an open block it is forgotten."""
        if cls._open:
            cls._open[-1]._noted[name] = amount


def _note_peaks(meters: list[Meter]) -> None:
    if not meters:
        return
    peak, cuda = _watch.peak_bytes(), _cuda()
    gpu_peak = 0 if cuda is None else max(cuda.max_memory_allocated(i) for i in range(cuda.device_count()))
    for meter in meters:
        meter._peak, meter._gpu_peak = max(meter._peak, peak), max(meter._gpu_peak, gpu_peak)


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else round(max(after - before, 0.0), 1)


class _Watch:
    """Peak memory and energy since a mark. A thread samples them where the kernel does not keep count.

    Energy counters wrap around to zero after minutes to hours of work, so they have to be read in between.
    """

    _SAMPLE_SECONDS: ClassVar[float] = 0.05
    _ENERGY_SECONDS: ClassVar[float] = 20.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sampled = 0
        self._resettable = True
        self._last: dict[Path, int] = {}
        self._microjoules = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def mark(self) -> None:
        """Forget earlier peaks, and measure from here on."""
        try:
            (_PROC / "clear_refs").write_text("5", encoding="utf-8")
            self._resettable = True
        except OSError:
            self._resettable = False
        self._sampled = 0
        if (cuda := _cuda()) is not None:
            for i in range(cuda.device_count()):
                cuda.reset_peak_memory_stats(i)
        if self._thread is None and (not self._resettable or self.joules() is not None):
            self._stopping.clear()
            self._thread = threading.Thread(target=self._look, name="meter", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the sampling thread."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def peak_bytes(self) -> int:
        """Return the most memory that the process held since the mark, in bytes."""
        if self._resettable:
            with suppress(OSError, StopIteration):
                lines = (_PROC / "status").read_text(encoding="utf-8").splitlines()
                return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        self._sampled = max(self._sampled, psutil.Process().memory_info().rss)
        return self._sampled

    def joules(self) -> float | None:
        """Return the energy used by the processor packages, from an arbitrary zero; None if they cannot be read."""
        with self._lock:
            counters = [path for path in _POWERCAP.glob("intel-rapl:*") if path.name.count(":") == 1]
            try:
                for path in counters:
                    now = int((path / "energy_uj").read_text(encoding="utf-8"))
                    around = int((path / "max_energy_range_uj").read_text(encoding="utf-8")) + 1
                    self._microjoules += (now - self._last.get(path, now)) % around
                    self._last[path] = now
            except (OSError, ValueError):
                return None
            return self._microjoules / 1e6 if counters else None

    def _look(self) -> None:
        pause = self._ENERGY_SECONDS if self._resettable else self._SAMPLE_SECONDS
        while not self._stopping.wait(pause):
            self.joules()
            if not self._resettable:
                self.peak_bytes()


_watch = _Watch()


def _cuda() -> Any:
    """Return torch's interface to GPUs if this process uses one already; asking for more would start using it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized() else None


def _gpu_joules() -> float | None:
    """Return the energy of the GPUs in use since their driver was loaded; None without the package nvidia-ml-py."""
    cuda = _cuda()
    if cuda is None or importlib.util.find_spec("pynvml") is None:
        return None
    pynvml: Any = importlib.import_module("pynvml")

    try:
        pynvml.nvmlInit()
        # Torch's numbers are not the driver's: CUDA_VISIBLE_DEVICES leaves some out.
        names = [f"GPU-{cuda.get_device_properties(i).uuid}" for i in range(cuda.device_count())]
        handles = [pynvml.nvmlDeviceGetHandleByUUID(name) for name in names]
        return sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles) / 1e3
    except (pynvml.NVMLError, AttributeError):
        return None


def _git(*arguments: str) -> str | None:
    # A package that was installed into somebody's repository has nothing to do with its commit.
    if not (_REPOSITORY / ".git").exists() or not (_REPOSITORY / "conf").is_dir():
        return None
    # Inside a git hook these variables name the repository of the hook.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return _said("git", "-C", str(_REPOSITORY), "--no-optional-locks", *arguments, environment=environment)


def _gpus() -> list[str]:
    """Return name, memory and driver of each GPU, from the driver's own tool, which opens no context on any of them."""
    if shutil.which("nvidia-smi") is None:
        return []
    said = _said("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return said.splitlines() if said else []


def _said(*command: str, environment: dict[str, str] | None = None) -> str | None:
    """Return what a program prints, or None if it fails, is missing, or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=True, env=environment
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
