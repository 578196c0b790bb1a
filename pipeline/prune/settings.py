"""Settings of one job: what the stages see of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.component import Component
from pipeline.config.probes import Probe
from pipeline.config.schema import (
    CaptureConfig,
    ExportConfig,
    FiguresConfig,
    MeasureConfig,
    PerplexityConfig,
    WandbConfig,
)
from pipeline.config.sparsity import Sparsity
from pipeline.store.identity import FULL_PRECISION

# A command line is checked without loading torch.
if TYPE_CHECKING:
    from pipeline.data.calibration.base import CalibrationSet
    from pipeline.model.sources.base import Model
    from pipeline.prune.base import Pruner


@dataclass(frozen=True)
class Settings:
    """One job, resolved: components, plain values, and the flat configuration for records and tracking."""

    model: Model
    pruner: Pruner
    # A task suite, of a folder above this one.
    task: Any
    calibration: CalibrationSet
    sparsity: Sparsity
    stages: tuple[str, ...]
    seed: int
    dtype: str
    outputs: Path
    export: ExportConfig
    probes: tuple[Probe, ...]
    figures: FiguresConfig
    capture: CaptureConfig
    measure: MeasureConfig
    # The further measures that measure.extra names, in the order of their names.
    extra: tuple[Component, ...]
    perplexity: PerplexityConfig
    wandb: WandbConfig
    flat: Mapping[str, Any]

    def batch_sizes(self, dtype: str) -> dict[str, int | str]:
        """Return the batch sizes where they move results: below float32, whose kernels round by shape."""
        if dtype in FULL_PRECISION:
            return {}
        return {"task": self.task.batch_size, "calibration": self.calibration.batch_size}
