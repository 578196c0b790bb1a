"""Check of the sequence lengths of a configuration against the positions of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def too_long(flat: Mapping[str, Any], positions: int, calibrated: bool) -> list[str]:
    """Return a sentence for each length of a flat configuration that is more than a model's positions.

    ``calibrated`` says whether the pruner reads calibration text.
    """
    stages = set(flat["stages"])
    asked = {
        "calibration.length": calibrated,
        "perplexity.window": "evaluate" in stages and flat["perplexity.tokens"] is not None,
        "capture.steps": bool({"capture", "measure"} & stages),
    }
    return [
        f"{key}={flat[key]} is more than the model's {positions} positions; give at most {positions}"
        for key, is_asked in asked.items()
        if is_asked and flat[key] > positions
    ]
