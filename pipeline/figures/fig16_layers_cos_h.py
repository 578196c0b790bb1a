"""Layer protocol: measured angular deviation of h against theorem 1 over steps, a panel per layer."""

from __future__ import annotations

from pipeline.figures.layer_panels import measured_and_estimate
from pipeline.figures.theorems import IN_H

FIGURE = measured_and_estimate("Angular deviation of h and its estimate in every layer", IN_H)
