"""The same command again, when everything is there: seconds until it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.bench.ratios import report, seconds
from pipeline.prune.settings import Settings
from pipeline.store.artifacts import Store

COMMAND = ("model=random", "pruner=magnitude", "sparsity=0.5", "task.limit=4", "wandb.mode=disabled")


def again(settings: Settings, store: Store, repeats: int) -> None:
    """Time a job of a random model from nothing, and once more; report both, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipeline.main", *COMMAND, f"outputs={Path(folder, 'outputs')}"]

        def run() -> None:
            subprocess.run(command, check=True, capture_output=True, env=os.environ | {"COLUMNS": "80"})

        first = seconds(run)
        second = min(seconds(run) for _ in range(max(1, repeats)))
    report("fresh_seconds", first)
    report("again_seconds", second)
    report("again_vs_fresh", second / first)
