"""Attention Drop and MLP Drop: remove the sublayers that turn the residual stream least (arXiv 2406.15786)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pipeline.decoder import SUBLAYERS, Decoder
from pipeline.pruners.base import Calibration, Pruner
from pipeline.pruners.decision import Decision
from pipeline.pruners.shortgpt import mean_cosines
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class SublayerDrop(Pruner):
    """Scores ``1 - mean cos(x, x + f(norm(x)))`` per sublayer on the dense model; drops the lowest of one kind."""

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    calibrated: ClassVar[bool] = True
    scores_once: ClassVar[bool] = True

    def scoring_identity(self) -> dict[str, Any]:
        return self.identity() | {"type": SublayerDrop.__qualname__}

    def importance(self, decoder: Decoder, calibration: Calibration | None) -> list[dict[str, Any]]:
        assert calibration is not None
        cosines = mean_cosines(decoder, calibration, stride=1, what="sublayer importance")
        return [
            {"layer": index // 2, "sublayer": SUBLAYERS[index % 2], "score": 1.0 - value}
            for index, value in enumerate(cosines)
        ]

    def decide(
        self,
        decoder: Decoder,
        sparsity: Sparsity,
        scores: list[dict[str, Any]],
        calibration: Calibration | None,
    ) -> Decision:
        mine = sorted((row for row in scores if row["sublayer"] == self.unit), key=lambda row: row["score"])
        layers = tuple(sorted(row["layer"] for row in mine[: sparsity.units_of(len(mine))]))
        decision = Decision(scores=scores)
        return replace(decision, attention=layers) if self.unit == "attention" else replace(decision, mlp=layers)


@dataclass(frozen=True)
class AttentionDrop(SublayerDrop):
    """Drops whole attention sublayers."""

    unit: ClassVar[str] = "attention"


@dataclass(frozen=True)
class MLPDrop(SublayerDrop):
    """Drops whole MLP sublayers."""

    unit: ClassVar[str] = "mlp"
