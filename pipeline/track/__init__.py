"""Tracks every job as its own finished W&B run. Only this package imports wandb."""

from __future__ import annotations

from pipeline.track.connection import MODES
from pipeline.track.readback import RunRecord, read_run
from pipeline.track.receipt import Receipt
from pipeline.track.run import RunSpec, track
from pipeline.track.tracker import Tracker

__all__ = ["MODES", "Receipt", "RunRecord", "RunSpec", "Tracker", "read_run", "track"]
