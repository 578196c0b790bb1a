"""Layer protocol: measured angular deviation of z against theorem 1 over steps, a panel per layer."""

from __future__ import annotations

from pipeline.analysis.theorems import IN_Z
from pipeline.plot.layer_panels import measured_and_estimate

FIGURE = measured_and_estimate("Angular deviation of z and its estimate in every layer", IN_Z)
