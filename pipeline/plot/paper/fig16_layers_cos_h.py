"""Layer protocol: measured angular deviation of h against theorem 1 in every layer, as a map of layer and step."""

from __future__ import annotations

from pipeline.analysis.theorems import IN_H
from pipeline.plot import layer_map
from pipeline.plot.layer_curves import measured_and_estimate

CURVES = measured_and_estimate("Angular deviation of h and its estimate in every layer", IN_H)
FIGURE = layer_map.figure(CURVES)
