"""Makes `magnitude` fail in a way for every sparsity. Python imports this file where its folder is on PYTHONPATH.

In the folder that the variable FAULTS names, a file `healthy` makes everything go well; other files are what the
faults leave there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAULTS"])


def killed_once() -> None:
    """As the kernel does to one of several jobs that fill the memory together."""
    if not (FOLDER / "killed").exists():
        (FOLDER / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk() -> None:
    """Nothing more can be written to the outputs, if they are on a disk of their own; says so in any case."""
    outputs = Path(os.environ["FAULTS_OUTPUTS"])
    if os.path.ismount(outputs):
        with suppress(OSError), (outputs / "filler").open("wb", buffering=0) as stream:
            while stream.write(bytes(4096)):
                pass
    raise OSError(28, "No space left on device")


def hang() -> None:
    (FOLDER / f"hangs-{os.getpid()}").touch()
    time.sleep(600)


FAULTS: dict[str, Callable[[], object]] = {
    "0.1": lambda: {}["no such key"],
    "0.12": lambda: sys.exit(3),
    "0.14": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "0.16": lambda: ctypes.string_at(0),
    "0.18": lambda: os._exit(7),
    "0.2": lambda: bytearray(1 << 60),
    "0.22": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "0.4": hang,
    "0.42": hang,
    "0.9": fill_the_disk,
}


# Also where all else goes well.
ONCE = {"0.3": killed_once}


class _Breaking(MetaPathFinder):
    _looking = False

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "pipeline.prune.methods.magnitude" or self._looking:
            return None
        self._looking = True
        spec: Any = importlib.util.find_spec(name)
        self._looking = False
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            _break(module.Magnitude)

        spec.loader.exec_module = exec_module
        return spec


def _break(pruner: Any) -> None:
    well = pruner.decide

    def decide(self: Any, decoder: Any, sparsity: Any, context: Any) -> Any:
        faults = ONCE if (FOLDER / "healthy").exists() else ONCE | FAULTS
        faults.get(str(sparsity.given), lambda: None)()
        return well(self, decoder, sparsity, context)

    pruner.decide = decide


sys.meta_path.insert(0, _Breaking())
