"""Further measures by the names of their YAML files."""

from __future__ import annotations

from pipeline.config.by_name import built
from pipeline.config.choices import read_choice
from pipeline.measure.base import FurtherMeasure, Measure, SetMeasure
from pipeline.measure.extras import CONTRACTS, GROUP


def further_measure(name: str) -> FurtherMeasure:
    """Build a further measure. Raises ValueError if its class is none."""
    made = built(f"{GROUP}/{name}", read_choice(GROUP, name))
    if not isinstance(made, Measure | SetMeasure):
        raise ValueError(f"conf/{GROUP}/{name}: {type(made).__name__} is no measure; derive it from {CONTRACTS}")
    return made
