"""Every job as its own finished W&B run. Nothing outside this package knows wandb."""

from __future__ import annotations

from pipeline.tracking.connection import MODES
from pipeline.tracking.readback import RunRecord, read_run
from pipeline.tracking.run import RunSpec, track
from pipeline.tracking.tracker import Receipt, Tracker

__all__ = ["MODES", "Receipt", "RunRecord", "RunSpec", "Tracker", "read_run", "track"]
