"""The unpruned baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.decoder import Decoder
from pipeline.pruners.base import Calibration, Pruner
from pipeline.pruners.decision import Decision
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class Dense(Pruner):
    """Removes nothing. Accepts no sparsity but zero."""

    accepts: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str] = ""
    calibrated: ClassVar[bool] = False

    def decide(
        self,
        decoder: Decoder,
        sparsity: Sparsity,
        scores: list[dict[str, Any]],
        calibration: Calibration | None,
    ) -> Decision:
        return Decision()
