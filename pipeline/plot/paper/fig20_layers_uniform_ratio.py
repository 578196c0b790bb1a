"""Layer protocol: uniform variance of the change of the logits over the orthogonal magnitudes, a panel per layer."""

from __future__ import annotations

from pipeline.plot.layer_panels import over_orthogonal

FIGURE = over_orthogonal(
    "Uniform variance over the orthogonal part in every layer",
    "var_uniform",
    r"$\mathrm{Var}(\Delta z)$",
    "Variance of dz (squared logits) with uniform weights over the vocabulary, divided by orth at each position.",
)
