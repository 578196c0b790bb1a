"""The contract of a pruner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.component import Component
from pipeline.console import Progress
from pipeline.decoder import Decoder
from pipeline.pruners.decision import Decision
from pipeline.sparsity import Sparsity


@dataclass(frozen=True)
class Calibration:
    """Tokenised calibration text. ``batches`` are (sequences, tokens) int64 without padding."""

    batches: list[torch.Tensor]
    progress: Progress

    def each(self, what: str) -> Iterable[torch.Tensor]:
        """The batches behind a progress bar named ``what``."""
        return self.progress(self.batches, what, len(self.batches))


@dataclass(frozen=True)
class Pruner(Component):
    """Chooses what to remove from a dense model.

    ``accepts`` names the kinds of sparsity that make sense (see ``pipeline.sparsity``), ``unit`` what an integer
    sparsity counts, and ``calibrated`` whether text is needed. All are literals: they are read before any model
    library is imported. A pruner implements ``decide``; one whose scores do not depend on the sparsity says
    ``scores_once`` and implements ``importance`` too, which is then computed once for all sparsities.
    """

    accepts: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str] = ""
    calibrated: ClassVar[bool] = True
    scores_once: ClassVar[bool] = False

    def scoring_identity(self) -> dict[str, Any]:
        """What ``importance`` depends on. Pruners that share their scores may share this."""
        return self.identity()

    def importance(self, decoder: Decoder, calibration: Calibration | None) -> list[dict[str, Any]]:
        """Scores that serve every sparsity, as rows with ``layer``, ``sublayer`` and ``score``."""
        raise TypeError(f"pruner {type(self).__name__} does not define importance()")

    def decide(
        self,
        decoder: Decoder,
        sparsity: Sparsity,
        scores: list[dict[str, Any]],
        calibration: Calibration | None,
    ) -> Decision:
        """Decide on the dense model. The model may be left with weights zeroed as decided, never otherwise changed.

        Raises ValueError if the sparsity cannot be had on this model.
        """
        raise TypeError(f"pruner {type(self).__name__} does not define decide()")
