"""Layer protocol: measured KL against theorem 3 in every layer, as a map of layer and step."""

from __future__ import annotations

from pipeline.analysis.theorems import OF_KL
from pipeline.plot import layer_map
from pipeline.plot.layer_curves import measured_and_estimate

CURVES = measured_and_estimate("KL and its estimate in every layer", OF_KL)
FIGURE = layer_map.figure(CURVES)
