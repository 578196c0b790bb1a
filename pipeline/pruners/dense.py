"""The unpruned baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.decoder import Decoder
from pipeline.pruners.base import Context, Pruner
from pipeline.pruners.decision import Decision
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class Dense(Pruner):
    """Removes nothing. Accepts no sparsity but zero."""

    calibrated: ClassVar[bool] = False

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        return Decision()
