"""Layer protocol: measured angular deviation of z against theorem 1 in every layer, as a map of layer and step."""

from __future__ import annotations

from pipeline.analysis.theorems import IN_Z
from pipeline.plot import layer_map
from pipeline.plot.layer_curves import measured_and_estimate

CURVES = measured_and_estimate("Angular deviation of z and its estimate in every layer", IN_Z)
FIGURE = layer_map.figure(CURVES)
