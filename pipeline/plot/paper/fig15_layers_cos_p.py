"""Layer protocol: measured angular deviation of p against theorem 2 over steps, a panel per layer."""

from __future__ import annotations

from pipeline.analysis.theorems import OF_P
from pipeline.plot.layer_panels import measured_and_estimate

FIGURE = measured_and_estimate("Angular deviation of p and its estimate in every layer", OF_P)
