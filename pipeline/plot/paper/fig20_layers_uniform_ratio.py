"""Layer protocol: uniform variance of the logit change over orthogonal magnitudes, as a map of layer and step."""

from __future__ import annotations

from pipeline.plot import layer_map
from pipeline.plot.layer_curves import over_orthogonal

CURVES = over_orthogonal(
    "Uniform variance over the orthogonal part in every layer",
    "var_uniform",
    r"$\mathrm{Var}(\Delta z)$",
    "Variance of dz (squared logits) with uniform weights over the vocabulary, divided by orth at each position.",
)
FIGURE = layer_map.figure(CURVES)
