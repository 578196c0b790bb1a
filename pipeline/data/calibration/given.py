"""Calibration text that the caller holds in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.data.calibration.base import CalibrationSet
from pipeline.store.integrity import digest


@dataclass(frozen=True)
class GivenText(CalibrationSet):
    """The documents ``texts``. Without ``packing``, each is one sequence, cut to ``length`` tokens."""

    texts: list[str] = field(default_factory=list)

    def identity(self) -> dict[str, Any]:
        """Return the identity, with a digest in the place of the texts."""
        identity = super().identity()
        return identity | {"texts": digest(self.texts)}

    def documents(self) -> list[str]:
        return self.texts
