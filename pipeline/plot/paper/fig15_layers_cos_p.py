"""Layer protocol: measured angular deviation of p against theorem 2 in every layer, as a map of layer and step."""

from __future__ import annotations

from pipeline.analysis.theorems import OF_P
from pipeline.plot import layer_map
from pipeline.plot.layer_curves import measured_and_estimate

CURVES = measured_and_estimate("Angular deviation of p and its estimate in every layer", OF_P)
FIGURE = layer_map.figure(CURVES)
