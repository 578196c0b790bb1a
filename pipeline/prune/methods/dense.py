"""The unpruned baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import Decision


@dataclass(frozen=True)
class Dense(Pruner):
    """Removes nothing. Accepts no sparsity but zero."""

    calibrated: ClassVar[bool] = False

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        return Decision()
