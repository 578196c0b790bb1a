"""Layer protocol: measured KL against theorem 3 over steps, a panel per layer."""

from __future__ import annotations

from pipeline.analysis.theorems import OF_KL
from pipeline.plot.layer_panels import measured_and_estimate

FIGURE = measured_and_estimate("KL and its estimate in every layer", OF_KL)
