"""Layer protocol: r-weighted variance of the change of the logits over the orthogonal magnitudes, a panel per layer."""

from __future__ import annotations

from pipeline.plot.layer_panels import over_orthogonal

FIGURE = over_orthogonal(
    "r-weighted variance over the orthogonal part in every layer",
    "var_r",
    r"$\mathrm{Var}_r(\Delta z)$",
    "Variance of dz (squared logits) with weights r = p^2 / |p|^2, divided by orth at each position.",
)
