"""Layer protocol: r-weighted variance of the logit change over orthogonal magnitudes, as a map of layer and step."""

from __future__ import annotations

from pipeline.plot import layer_map
from pipeline.plot.layer_curves import over_orthogonal

CURVES = over_orthogonal(
    "r-weighted variance over the orthogonal part in every layer",
    "var_r",
    r"$\mathrm{Var}_r(\Delta z)$",
    "Variance of dz (squared logits) with weights r = p^2 / |p|^2, divided by orth at each position.",
)
FIGURE = layer_map.figure(CURVES)
